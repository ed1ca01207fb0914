//! The site in a real browser: searching, filtering and following links, without a console error, and quickly.
//!
//! Needs `chromedriver` and `chromium` in the path (Debian's chromium-driver); where they are not, the test is passed
//! over and says so, unless CI is set: there it must run.

#![expect(clippy::expect_used, reason = "in a test a panic is the report")]

use harness::cli::Cli;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A browser under a driver; both end with it.
struct Browser {
    driver: Child,
    port: u16,
    session: String,
    _profile: tempfile::TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let _ = request(self.port, "DELETE", &format!("/session/{}", self.session), &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// One exchange with the driver: the answer's `value`.
fn request(port: u16, method: &str, path: &str, body: &Value) -> Result<Value, String> {
    let failed = |error: std::io::Error| format!("{method} {path}: {error}");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(failed)?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).map_err(failed)?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).map_err(failed)?;
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).map_err(failed)?;
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(|_| format!("{path}: no length"))?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut text = vec![0; length];
    reader.read_exact(&mut text).map_err(failed)?;
    let answer: Value = serde_json::from_slice(&text).map_err(|error| format!("{path}: {error}"))?;
    match answer["value"].get("error") {
        Some(error) => Err(format!("{path}: {error}: {}", answer["value"]["message"])),
        None => Ok(answer["value"].clone()),
    }
}

impl Browser {
    /// Starts driver and browser.
    fn start() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts");
        let mut output = BufReader::new(driver.stdout.take().expect("its output is piped"));
        let mut port = 0;
        let mut line = String::new();
        while port == 0 && output.read_line(&mut line).expect("chromedriver speaks") > 0 {
            let said = line.trim().trim_end_matches('.').rsplit_once("on port ");
            port = said.and_then(|(_, port)| port.parse().ok()).unwrap_or(0);
            line.clear();
        }
        let profile = tempfile::tempdir().expect("a folder for the profile");
        let mut browser = Self { driver, port, session: String::new(), _profile: profile };
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--window-size=1280,900",
        ];
        let mut arguments: Vec<String> = arguments.map(str::to_owned).into();
        arguments.push(format!("--user-data-dir={}", browser._profile.path().display()));
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let session = request(port, "POST", "/session", &wanted).expect("a session begins");
        session["sessionId"].as_str().expect("the session has an id").clone_into(&mut browser.session);
        browser
    }

    fn ask(&self, path: &str, body: &Value) -> Value {
        let path = format!("/session/{}/{path}", self.session);
        request(self.port, "POST", &path, body).unwrap_or_else(|problem| panic!("{problem}"))
    }

    fn open(&self, page: &Path) {
        self.ask("url", &json!({"url": format!("file://{}", page.display())}));
    }

    fn script(&self, script: &str) -> Value {
        self.ask("execute/sync", &json!({"script": script, "args": []}))
    }

    fn element(&self, selector: &str) -> String {
        let found = self.ask("element", &json!({"using": "css selector", "value": selector}));
        let id = found.as_object().and_then(|it| it.values().next()).and_then(Value::as_str);
        id.expect("an element has an id").to_owned()
    }

    fn type_into(&self, selector: &str, text: &str) {
        self.ask(&format!("element/{}/value", self.element(selector)), &json!({"text": text}));
    }

    fn click(&self, selector: &str) {
        self.ask(&format!("element/{}/click", self.element(selector)), &json!({}));
    }

    /// Waits until a script gives true.
    fn until(&self, script: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.script(script) != Value::Bool(true) {
            assert!(Instant::now() < deadline, "never true: {script}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What the console has said since the last question, of the level that is an error.
    fn errors(&self) -> Vec<Value> {
        let said = self.ask("se/log", &json!({"type": "browser"}));
        said.as_array().into_iter().flatten().filter(|it| it["level"] == "SEVERE").cloned().collect()
    }
}

fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn site(folder: &Path) -> PathBuf {
    use clap::Parser as _;
    let out = folder.join("site");
    let cli = Cli::try_parse_from([Path::new("conform"), Path::new("report"), Path::new("--out"), &out]);
    let code =
        harness::verbs::carry_out(cli.expect("the command line is right")).expect("the site is written");
    assert_eq!(code, 0);
    out
}

#[test]
fn the_site_works_in_a_browser() {
    if !has("chromedriver") || !has("chromium") {
        assert!(
            std::env::var_os("CI").is_none(),
            "chromium-driver is missing; apt-get install chromium-driver"
        );
        eprintln!("passed over: no chromedriver; apt-get install chromium-driver");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let site = site(folder.path());
    let browser = Browser::start();

    browser.open(&site.join("index.html"));
    let loaded = browser.script("return performance.getEntriesByType('navigation')[0].loadEventEnd");
    assert!(loaded.as_f64().is_some_and(|ms| ms > 0.0 && ms < 2000.0), "the matrix took {loaded} ms to open");

    // Searching, by the key that focuses the field.
    let shown = "return [...document.querySelectorAll('.matrix tbody tr')].filter(row => row.checkVisibility()).length";
    let all = browser.script(shown).as_u64().expect("a number");
    assert!(all > 500, "{all}");
    browser.ask(
        "actions",
        &json!({"actions": [{"type": "key", "id": "k", "actions": [
        {"type": "keyDown", "value": "/"}, {"type": "keyUp", "value": "/"}]}]}),
    );
    browser.until("return document.activeElement.id === 'search'");
    browser.type_into("#search", "bpf_get_func_ip");
    browser.until("return document.querySelector('#count').value === '1 shown'");

    // Filtering: that helper is usable nowhere.
    browser.script("const show = document.querySelector('#show'); show.value = 'y'; show.dispatchEvent(new Event('input'))");
    browser.until("return document.querySelector('#count').value === '0 shown'");
    browser.script("const show = document.querySelector('#show'); show.value = 'x'; show.dispatchEvent(new Event('input'))");
    browser.until("return document.querySelector('#count').value === '1 shown'");

    // What a build lacks is not known of its version, and not said to be unusable.
    let set = |field: &str, value: &str| {
        browser.script(&format!(
            "const it = document.querySelector('#{field}'); it.value = {value}; it.dispatchEvent(new Event('input'))"
        ));
    };
    set("kernel", "[...it.options].find(option => option.text === '7.2').value");
    set("search", "'hid_bpf_get_data'");
    for (show, shown) in [("u", 1), ("x", 0), ("y", 0)] {
        set("show", &format!("'{show}'"));
        browser.until(&format!("return document.querySelector('#count').value === '{shown} shown'"));
    }
    set("kernel", "''");
    set("search", "'bpf_get_func_ip'");
    set("show", "'x'");
    browser.until("return document.querySelector('#count').value === '1 shown'");

    // From a cell to the item's page, from there to the kernel's.
    browser.click("#helper tbody tr:not([hidden]) td a");
    browser.until("return document.querySelector('h1').textContent === 'bpf_get_func_ip'");
    browser.until("return document.querySelector(':target') !== null");
    browser.click(".kernels > div:target a");
    browser.until("return document.querySelector('.kind').textContent === 'kernel'");

    // Any two kernels.
    browser.click("nav a[href$='differences.html']");
    browser.until("return document.querySelectorAll('#differences tbody tr').length > 100");
    browser.type_into("#search", "file_mprotect/as-compiled");
    browser.until("return document.querySelectorAll('#differences tbody tr').length === 1 || document.querySelectorAll('#differences tbody tr').length === 2");

    // On a phone nothing but tables, which scroll by themselves, is wider than the screen.
    browser.ask("window/rect", &json!({"width": 390, "height": 800}));
    for page in ["index.html", "claims.html", "helpers/bpf_get_func_ip.html"] {
        browser.open(&site.join(page));
        let wider = browser
            .script("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
        assert_eq!(wider, json!(0), "{page} is wider than a phone");
    }
    assert_eq!(browser.errors(), Vec::<Value>::new());
}

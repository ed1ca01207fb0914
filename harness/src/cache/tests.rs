//! The cache folder: entries, temporary folders, locks.

use super::*;
use rstest::rstest;

fn opened() -> (tempfile::TempDir, Cache) {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    (dir, cache)
}

#[rstest]
#[case::own_variable(&[("CONFORM_CACHE", "/c"), ("XDG_CACHE_HOME", "/x"), ("HOME", "/h")], Some("/c"))]
#[case::xdg(&[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")], Some("/x/bpf-lsm-conformance"))]
#[case::home(&[("CONFORM_CACHE", ""), ("XDG_CACHE_HOME", "x"), ("HOME", "/h")], Some("/h/.cache/bpf-lsm-conformance"))]
#[case::nothing(&[], None)]
fn the_root_comes_from_the_environment(#[case] set: &[(&str, &str)], #[case] want: Option<&str>) {
    let root = default_root(|name| set.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into()));
    assert_eq!(root.ok(), want.map(PathBuf::from));
}

#[test]
fn publishing_replaces_all_at_once_and_leaves_nothing_behind() {
    let (_dir, cache) = opened();
    let dest = cache.kernel_dir("a/b");
    assert!(dest.ends_with("kernels/a_b"));
    for content in ["one", "two"] {
        let temp = cache.temp_dir().unwrap();
        fs::write(temp.path().join("file"), content).unwrap();
        cache.publish(temp, &dest).unwrap();
        assert_eq!(fs::read_to_string(dest.join("file")).unwrap(), content);
    }
    assert_eq!(fs::read_dir(cache.root().join("tmp")).unwrap().count(), 0);
}

#[test]
fn without_an_exchange_an_entry_is_replaced_all_the_same_and_stays_where_that_fails() {
    let (_dir, cache) = opened();
    let dest = cache.kernel_dir("k");
    let made = |content: &str| {
        let temp = cache.temp_dir().unwrap();
        fs::write(temp.path().join("file"), content).unwrap();
        temp
    };
    let unknown = |_: &Path, _: &Path| Err(io::Error::from_raw_os_error(libc::EINVAL));
    let there = || fs::read_to_string(dest.join("file")).unwrap();
    cache.publish(made("one"), &dest).unwrap();
    cache.put(made("two").path(), &dest, unknown).unwrap();
    assert_eq!(there(), "two");
    // Nothing can be moved from where nothing is.
    let gone = cache.root().join("tmp/gone");
    assert_eq!(cache.put(&gone, &dest, unknown).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(there(), "two");
    assert_eq!(cache.put(&gone, &dest, exchange).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(there(), "two");
    assert_eq!(fs::read_dir(cache.root().join("tmp")).unwrap().count(), 0);
}

#[test]
fn what_replaces_an_entry_is_exchanged_with_it() {
    let (_dir, cache) = opened();
    let [one, other] = ["one", "other"].map(|name| cache.root().join("tmp").join(name));
    fs::create_dir(&one).unwrap();
    fs::create_dir(&other).unwrap();
    fs::write(one.join("file"), "").unwrap();
    // Where the file system that has the temporary files cannot, there is nothing to see.
    if exchange(&one, &other).is_ok() {
        assert!(other.join("file").exists() && one.exists());
    }
}

#[test]
fn nobody_else_can_enter_what_is_under_way() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_dir, cache) = opened();
    let temp = cache.temp_dir().unwrap();
    assert_eq!(fs::metadata(temp.path()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn left_overs_go_and_what_is_in_use_stays() {
    let (dir, cache) = opened();
    let live = cache.temp_dir().unwrap();
    let dead = dir.path().join("tmp/1-1");
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join("half"), "x").unwrap();
    for lock in ["tmp/1-1.lock", "tmp/2-2.lock"] {
        fs::write(dir.path().join(lock), "process 1").unwrap();
    }
    drop(Cache::open(dir.path()).unwrap());
    assert!(live.path().exists());
    // The folder in use, and its lock.
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 2);
}

#[test]
fn a_lock_is_exclusive_names_its_holder_and_ends_with_the_guard() {
    let (_dir, cache) = opened();
    let (progress, lines) = Progress::collected();
    let held = cache.lock("kernel x", &progress, Duration::ZERO).unwrap();
    let error = cache.lock("kernel x", &progress, Duration::from_millis(120)).unwrap_err();
    let me = format!("process {}", std::process::id());
    assert!(error.to_string().contains(&me), "{error}");
    assert!(lines.lock().unwrap()[0].contains(&me));
    drop(held);
    cache.lock("kernel x", &progress, Duration::ZERO).unwrap();
}

#[test]
fn two_threads_never_hold_a_lock_together() {
    let (_dir, cache) = opened();
    let inside = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    let _lock = cache.lock("x", &Progress::silent(), Duration::from_secs(60)).unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    inside.fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
    });
}

#[test]
fn a_full_disk_and_a_closed_folder_say_so() {
    let full = CacheError::io("write", Path::new("/c"), io::ErrorKind::StorageFull.into());
    assert!(full.to_string().contains("is full"), "{full}");
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Cache::open(file.path()).unwrap_err();
    assert_eq!(error.exit_code(), exit::INFRASTRUCTURE);
}

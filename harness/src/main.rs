//! The command `conform`.
use clap::Parser;
use harness::cli::{Cli, Verb};
use harness::run::*;
use harness::vmm::*;
struct P;
impl collect::Observer for P {
    fn note(&self, k: &str, t: &str) {
        eprintln!("[{k}] {t}");
    }
    fn progress(&self, _: &str, _: usize, _: usize) {}
}
fn main() {
    let cli = Cli::parse();
    match cli.verb {
        Verb::Guard { remove, command } => std::process::exit(guard::run(&command, remove)),
        Verb::Run(o) => {
            let g = guest::build(std::path::Path::new(".")).unwrap();
            std::fs::create_dir_all("target/conform").unwrap();
            initramfs::write(&g, std::path::Path::new("target/conform/i.cpio")).unwrap();
            let setup = Setup {
                launcher: Launcher {
                    kind: o.machine.vmm,
                    vng: Some("/tmp/vng/bin/vng".into()),
                    qemu: "/usr/bin/qemu-system-x86_64".into(),
                },
                accel: Accel::Tcg,
                qemu_version: "x".into(),
                initramfs: std::fs::canonicalize("target/conform/i.cpio").unwrap(),
                guard: std::env::current_exe().unwrap(),
                deadlines: Deadlines::for_accel(Accel::Tcg),
                select: o.selection.probes.clone(),
                detail: false,
                memory_mib: 384,
                cpus: 1,
            };
            let jobs: Vec<Job> = o
                .selection
                .kernels
                .iter()
                .map(|k| {
                    let n = std::path::Path::new(k).file_name().unwrap().to_string_lossy().into_owned();
                    let f = std::path::PathBuf::from("target/conform/x").join(&n);
                    std::fs::create_dir_all(&f).unwrap();
                    Job {
                        kernel: n,
                        image: harness::model::ImageFacts { path: k.into(), ..Default::default() },
                        lsm: "landlock,lockdown,yama,bpf".into(),
                        release_prefix: "".into(),
                        folder: f,
                    }
                })
                .collect();
            let t = std::time::Instant::now();
            let runs = schedule::run_all(&setup, &jobs, o.machine.jobs.unwrap_or(2), &P, &|_| {});
            println!("{}", serde_json::to_string_pretty(&runs).unwrap());
            eprintln!("{:?}", t.elapsed());
        }
        _ => {}
    }
}

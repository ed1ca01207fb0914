//! Writes the names of the conformance tests: one per probe family and kernel row, so that adding a row to
//! `matrix.yaml` or a family to `probes` needs no edit here. A test checks that the lists are those of the program.

use std::fmt::Write as _;
use std::path::Path;

fn main() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let matrix = top.join("matrix.yaml");
    let families = top.join("probes/src/families");
    println!("cargo::rerun-if-changed={}", matrix.display());
    println!("cargo::rerun-if-changed={}", families.display());
    let kernels = kernels(&matrix);
    let families = family_names(&families);
    let mut text = String::from("#[rstest]\n");
    // Families first: the first tests to start then take different kernels, and each kernel is booted once.
    for family in &families {
        for kernel in &kernels {
            let name: String = format!("{family}_on_{}", kernel.name)
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
                .collect();
            if kernel.from_sources {
                // cargo then counts it as ignored, not as passed.
                text += "#[ignore = \"built from sources: cargo conform kernels build, then --ignored\"]\n";
            }
            let _ = writeln!(text, "#[case::{name}({family:?}, {:?})]", kernel.name);
        }
    }
    text += "fn conformance(#[case] family: &str, #[case] kernel: &str) { check(family, kernel); }\n";
    let names: Vec<&str> = kernels.iter().map(|kernel| kernel.name.as_str()).collect();
    let _ = writeln!(text, "const KERNELS: &[&str] = &{names:?};");
    let _ = writeln!(text, "const FAMILIES: &[&str] = &{families:?};");
    let out = std::env::var_os("OUT_DIR").unwrap_or_default();
    if let Err(error) = std::fs::write(Path::new(&out).join("conformance.rs"), text) {
        println!("cargo::error=cannot write the list of conformance tests: {error}");
    }
}

/// A row of the matrix.
struct Kernel {
    name: String,
    /// It has to be built before it can be run.
    from_sources: bool,
}

/// The rows. A matrix that cannot be read gives none: the program itself says what is wrong with it.
fn kernels(matrix: &Path) -> Vec<Kernel> {
    let document: serde_yaml::Value = std::fs::read_to_string(matrix)
        .ok()
        .and_then(|text| serde_yaml::from_str(&text).ok())
        .unwrap_or_default();
    let rows = document.get("kernels").and_then(serde_yaml::Value::as_sequence).cloned().unwrap_or_default();
    let kernel = |row: &serde_yaml::Value| {
        let name = row.get("name")?.as_str()?.to_owned();
        Some(Kernel { name, from_sources: row.get("archive").is_some() })
    };
    rows.iter().filter_map(kernel).collect()
}

/// The names of the families: each is a module of its own.
fn family_names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .filter_map(|path| path.file_stem().map(|name| name.to_string_lossy().into_owned()))
        .filter(|name| name != "mod" && name != "selftest") // the hidden family has no snapshots
        .collect();
    names.sort();
    names
}

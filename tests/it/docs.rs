//! The documents keep what they promise.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below a directory.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                sources(&path)
            } else {
                vec![path]
            }
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

#[test]
fn each_test_that_the_guarantees_name_exists() {
    let code: String = ["src", "tests"]
        .into_iter()
        .flat_map(|directory| sources(&root().join(directory)))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let page = fs::read_to_string(root().join("docs/guarantees.md")).unwrap();
    let is_test_name =
        |text: &&str| text.matches('_').count() >= 2 && !text.contains([' ', '-', '/', '.']);
    let names: Vec<_> = page
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(is_test_name)
        .collect();
    assert!(names.len() > 40, "{} names", names.len());
    for name in names {
        let exists = name.starts_with("_airbyte")
            || name.ends_with('_')
            || code.contains(&format!("fn {name}("));
        assert!(
            exists,
            "docs/guarantees.md names the test {name}, which does not exist"
        );
    }
}

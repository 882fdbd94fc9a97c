//! What the fuzzer was given, and what it has found: see `fuzz/`.

use std::fs;
use std::path::Path;

#[expect(
    unreachable_pub,
    reason = "it is the library of the fuzz targets, which are crates of their own"
)]
#[path = "../../fuzz/src/lib.rs"]
mod fuzz;

/// The names of all that is in a directory below `fuzz/`, in order.
fn names(directory: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(directory);
    let entries = fs::read_dir(path).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_holds_for_any_input_holds_for_the_corpus() {
    let targets = fuzz::TARGETS.map(|(name, _)| name);
    assert_eq!(names("corpus"), targets);
    assert_eq!(
        names("fuzz_targets"),
        targets.map(|name| format!("{name}.rs"))
    );
    for (target, check) in fuzz::TARGETS {
        let corpus = names(&format!("corpus/{target}"));
        assert!(corpus.len() >= 3, "{target}: {corpus:?}");
        for name in corpus {
            let path = format!("{}/fuzz/corpus/{target}/{name}", env!("CARGO_MANIFEST_DIR"));
            // A check that fails panics, and the output of the test says at which input.
            println!("{path}");
            check(&fs::read(&path).unwrap());
        }
    }
}

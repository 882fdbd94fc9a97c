//! What is shipped around the program says the same as the program.

use std::fs;
use std::path::Path;

use serde_json::Value;

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn file(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The lines of the Dockerfile that count, with those that are continued in one.
fn instructions() -> Vec<String> {
    file("Dockerfile")
        .replace("\\\n", " ")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

fn instruction<'a>(instructions: &'a [String], name: &str) -> &'a str {
    let mut found = instructions
        .iter()
        .filter_map(|line| line.strip_prefix(name));
    let instruction = found
        .next_back()
        .unwrap_or_else(|| panic!("no {name} in the Dockerfile"));
    instruction.trim()
}

#[test]
fn image_and_metadata_have_the_version_of_the_crate() {
    let instructions = instructions();
    assert_eq!(
        instruction(&instructions, "LABEL"),
        format!("io.airbyte.name=\"airbyte/destination-kinesis\" io.airbyte.version=\"{VERSION}\"")
    );
    let metadata = file("metadata.yaml");
    for line in [
        format!("dockerImageTag: {VERSION}"),
        "dockerRepository: airbyte/destination-kinesis".to_owned(),
    ] {
        assert!(
            metadata.lines().any(|have| have.trim() == line),
            "metadata.yaml has no line {line:?}"
        );
    }
    let tags = file("Dockerfile");
    let mut tags = tags.split("/destination-kinesis:").skip(1);
    assert!(tags.all(|rest| rest.starts_with(&format!("{VERSION} "))));
}

#[test]
fn the_image_names_its_program_twice_and_the_same() {
    let instructions = instructions();
    let program = "/usr/local/bin/destination-kinesis";
    assert_eq!(
        instruction(&instructions, "ENTRYPOINT"),
        format!("[\"{program}\"]")
    );
    assert_eq!(
        instruction(&instructions, "ENV"),
        format!("AIRBYTE_ENTRYPOINT=\"{program}\"")
    );
    assert!(
        instructions
            .iter()
            .any(|line| line.starts_with("COPY --from=build") && line.ends_with(program))
    );
    assert_eq!(instruction(&instructions, "USER"), "1000:1000");
}

/// Cargo reads no manifest that names a file that is not there, so the stage that has only the dependencies needs them all.
#[test]
fn the_stage_of_the_dependencies_has_a_file_for_each_benchmark() {
    let manifest = file("Cargo.toml");
    let stage = instruction(&instructions(), "RUN mkdir").to_owned();
    for bench in manifest.split("[[bench]]").skip(1) {
        let name = bench
            .lines()
            .find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
            .unwrap();
        assert!(
            stage.contains(&format!(" benches/{name}.rs ")),
            "the Dockerfile makes no benches/{name}.rs"
        );
    }
}

#[test]
fn metadata_and_specification_name_the_same_documentation() {
    let spec: Value = serde_json::from_str(&file("src/spec.json")).unwrap();
    let url = spec["documentationUrl"].as_str().unwrap();
    let metadata = file("metadata.yaml");
    assert!(
        metadata
            .lines()
            .any(|line| line.trim() == format!("documentationUrl: {url}")),
        "metadata.yaml does not name {url}"
    );
}

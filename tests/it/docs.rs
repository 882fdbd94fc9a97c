//! The documents say what the code says.
//!
//! What they show of it stands between `<!-- begin: … -->` and `<!-- end -->`, and is written anew by
//! `UPDATE_DOCS=1 cargo test --test it docs`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use destination_kinesis::limits;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files below a directory with this extension.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                files(&path, extension)
            } else {
                vec![path]
            }
        })
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect()
}

/// The pages that people read.
fn pages() -> Vec<PathBuf> {
    let top = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root().join(name));
    let below = ["docs", "integration_tests"]
        .into_iter()
        .flat_map(|directory| files(&root().join(directory), "md"));
    top.into_iter().chain(below).collect()
}

#[test]
fn each_test_that_the_guarantees_name_exists() {
    let code: String = ["src", "tests"]
        .into_iter()
        .flat_map(|directory| files(&root().join(directory), "rs"))
        .map(read)
        .collect();
    let page = read("docs/guarantees.md");
    let is_test_name =
        |text: &&str| text.matches('_').count() >= 2 && !text.contains([' ', '-', '/', '.', '=']);
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

// ---- what is shown of the code ------------------------------------------------------------------------

#[test]
fn what_the_pages_show_of_the_code_is_what_is_there() {
    let mut shown = 0;
    for page in files(&root().join("docs"), "md") {
        let text = read(&page);
        let mut renewed = String::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once("<!-- begin: ") {
            let (name, after) = after.split_once(" -->\n").unwrap();
            let (_, after) = after
                .split_once("<!-- end -->")
                .unwrap_or_else(|| panic!("{}: no end of {name}", page.display()));
            write!(
                renewed,
                "{before}<!-- begin: {name} -->\n{}<!-- end -->",
                render(name)
            )
            .unwrap();
            rest = after;
            shown += 1;
        }
        renewed.push_str(rest);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::write(&page, &renewed).unwrap();
        } else {
            assert!(
                text == renewed,
                "{} is behind the code: UPDATE_DOCS=1 cargo test --test it docs",
                page.display()
            );
        }
    }
    assert!(shown > 10, "{shown}");
}

fn render(name: &str) -> String {
    match name {
        "settings" => settings(),
        "limits" => limits_table(),
        file => {
            let language = file.rsplit('.').next().unwrap().replace("py", "python");
            format!("```{language}\n{}```\n", read(Path::new("docs").join(file)))
        }
    }
}

/// The settings of the specification, in the order of the form.
fn settings() -> String {
    let spec: Value = serde_json::from_str(&read("src/spec.json")).unwrap();
    let properties = &spec["connectionSpecification"]["properties"];
    let mut fields: Vec<_> = properties.as_object().unwrap().iter().collect();
    fields.sort_by_key(|(_, field)| field["order"].as_u64());
    let mut table =
        "| setting | title in the form | type | default | allowed |\n|---|---|---|---|---|\n"
            .to_owned();
    let mut descriptions = String::new();
    for (key, field) in fields {
        let secret = if field["airbyte_secret"] == true {
            ", secret"
        } else {
            ""
        };
        writeln!(
            table,
            "| `{key}` | {} | {}{secret} | {} | {} |",
            field["title"].as_str().unwrap(),
            field["type"].as_str().unwrap(),
            field
                .get("default")
                .map_or("–".to_owned(), |value| format!("`{value}`")),
            allowed(field)
        )
        .unwrap();
        write!(
            descriptions,
            "\n**`{key}`**: {}",
            field["description"].as_str().unwrap()
        )
        .unwrap();
        if let Some(examples) = field["examples"].as_array() {
            let examples: Vec<_> = examples.iter().map(|value| format!("`{value}`")).collect();
            write!(descriptions, " For example {}.", examples.join(", ")).unwrap();
        }
        descriptions.push('\n');
    }
    table + &descriptions
}

fn allowed(field: &Value) -> String {
    let list = |values: &Value| -> Vec<String> {
        let values = values.as_array().into_iter().flatten();
        values.map(|value| format!("`{value}`")).collect()
    };
    if field.get("enum").is_some() {
        list(&field["enum"]).join(", ")
    } else if let (Some(minimum), Some(maximum)) = (field.get("minimum"), field.get("maximum")) {
        format!("{minimum} to {maximum}")
    } else if let Some(most) = field.get("maxItems") {
        format!("{most} at most")
    } else {
        String::new()
    }
}

fn limits_table() -> String {
    let mib = |bytes: usize| format!("{} MiB", bytes / 1024 / 1024);
    let seconds = |duration: std::time::Duration| format!("{} s", duration.as_secs_f64());
    let rows = [
        ("a line of the input", mib(limits::LINE_BYTES_MAX)),
        (
            "records and states held in memory; then stdin is not read",
            mib(limits::HELD_BYTES_MAX),
        ),
        (
            "the same in a container with little memory: a part of it",
            format!(
                "1/{} of it, {} at least",
                limits::HELD_SHARE_OF_MEMORY,
                mib(limits::HELD_BYTES_MIN)
            ),
        ),
        (
            "requests under way at one time",
            limits::IN_FLIGHT_REQUESTS_MAX.to_string(),
        ),
        (
            "records in requests that are not sent yet",
            mib(limits::UNSENT_BYTES_MAX),
        ),
        (
            "bytes of data and keys in one request",
            mib(limits::REQUEST_BYTES_MAX),
        ),
        (
            "time that a record waits for others to share a request",
            seconds(limits::BATCH_AGE_MAX),
        ),
        ("time to connect", seconds(limits::CONNECT_TIMEOUT)),
        (
            "time for an answer, longer for large requests",
            seconds(limits::ATTEMPT_TIMEOUT),
        ),
        (
            "time for a stream to become writable",
            seconds(limits::STREAM_WRITABLE_MAX),
        ),
        (
            "time to store what is buffered, after SIGTERM or an unreadable line",
            seconds(limits::SHUTDOWN_GRACE),
        ),
        (
            "characters of a log message",
            limits::LOG_CHARS_MAX.to_string(),
        ),
    ];
    let mut table = "| what | at most |\n|---|---|\n".to_owned();
    for (what, limit) in rows {
        writeln!(table, "| {what} | {limit} |").unwrap();
    }
    table
}

// ---- messages -----------------------------------------------------------------------------------------

/// What comes before the text of a message for the user. Of a `Fault`, the reason and the advice.
const MESSAGES: [&str; 9] = [
    "Error::config(",
    "Error::transient(",
    "Error::system(",
    "Fault::new(",
    ".report(",
    "tracing::warn!(",
    "tracing::error!(",
    "warnings.push(",
    "fn only_one_key(missing: Text, given: Text) -> String {",
];

#[test]
fn troubleshooting_has_each_message_of_the_code_and_no_other() {
    let mut messages = BTreeSet::new();
    for path in files(&root().join("src"), "rs") {
        if path.ends_with("tests.rs") {
            continue;
        }
        let code = read(&path);
        let code = code.split("#[cfg(test)]\nmod tests").next().unwrap();
        for marker in MESSAGES {
            for (place, _) in code.match_indices(marker) {
                messages.extend(message(&code[place + marker.len()..], marker));
            }
        }
    }
    // A warning that was made elsewhere.
    messages.remove("…");
    assert!(messages.len() > 50, "{messages:#?}");
    let page = read("docs/troubleshooting.md");
    let told: BTreeSet<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("> "))
        .map(str::to_owned)
        .collect();
    let missing: Vec<_> = messages.difference(&told).collect();
    let stale: Vec<_> = told.difference(&messages).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "docs/troubleshooting.md lacks {missing:#?}\nand has, as lines that begin with >, what no code says: {stale:#?}"
    );
}

/// The message that begins here, with `…` for what is filled in. None where something else than a text stands.
fn message(code: &str, marker: &str) -> Option<String> {
    // The fields of an event come before its text.
    let code = if marker.ends_with("!(") {
        &code[code.find('"')?..]
    } else {
        let code = code.trim_start();
        code.strip_prefix("format!(").unwrap_or(code).trim_start()
    };
    let (text, rest) = literal(code)?;
    if marker != "Fault::new(" {
        return Some(text);
    }
    let (advice, _) = literal(rest.strip_prefix(',')?.trim_start())?;
    Some(format!("{text}: {advice}"))
}

/// Reads a string literal of Rust.
fn literal(code: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut rest = code.strip_prefix('"')?;
    loop {
        let c = rest.chars().next()?;
        rest = &rest[c.len_utf8()..];
        match c {
            '"' => return Some((text, rest)),
            '\\' if rest.starts_with('\n') => rest = rest.trim_start(),
            '\\' => {
                text.push(rest.chars().next()?);
                rest = &rest[1..];
            }
            '{' | '}' if rest.starts_with(c) => {
                text.push(c);
                rest = &rest[1..];
            }
            '{' => {
                rest = rest.split_once('}')?.1;
                if !text.ends_with('…') {
                    text.push('…');
                }
            }
            c => text.push(c),
        }
    }
}

// ---- links and tables ---------------------------------------------------------------------------------

#[test]
fn each_link_between_the_pages_leads_somewhere() {
    let mut links = 0;
    for page in pages() {
        let text = read(&page);
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().unwrap();
            if link.starts_with("http") {
                continue;
            }
            links += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                page.clone()
            } else {
                page.parent().unwrap().join(file)
            };
            assert!(target.exists(), "{}: {link}", page.display());
            assert!(
                anchor.is_empty() || anchors(&read(&target)).contains(anchor),
                "{}: {link} has no such heading",
                page.display()
            );
        }
    }
    assert!(links > 40, "{links}");
}

/// What a page's headings are called in links.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let words = line.trim_start_matches('#').trim().to_lowercase();
            let kept = words
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.collect::<String>().replace(' ', "-")
        })
        .collect()
}

#[test]
fn contributing_says_what_each_dependency_is_for() {
    let manifest = read("Cargo.toml");
    let mut section = "";
    let mut dependencies = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        } else if section.ends_with("dependencies]")
            && let Some((name, _)) = line.split_once(" =")
        {
            dependencies.insert(name.to_owned());
        }
    }
    let page = read("CONTRIBUTING.md");
    let (_, table) = page
        .split_once("## What each dependency is for\n")
        .expect("the heading");
    let rows = table.split("\n## ").next().unwrap().lines();
    let explained: BTreeSet<String> = rows
        .filter_map(|row| row.strip_prefix("| `")?.split('|').next())
        .flat_map(|names| names.split([',', ' ', '`']))
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    assert_eq!(explained, dependencies);
}

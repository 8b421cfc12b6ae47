//! `audit`: runs the repository's audit over the files that git tracks and the crates that cargo builds, prints each
//! finding on a line and exits with 1 when there is one. `audit --write-licences` writes the list of the Go modules' licences,
//! from the modules' own files, which Go downloads where they are not there.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use supercargo_e2e::audit::modules::{self, Module};
use supercargo_e2e::audit::{Finding, licences, repetition, stray, versions};

fn main() -> Result<ExitCode> {
    let files = tracked_files()?;
    if std::env::args().nth(1).as_deref() == Some("--write-licences") {
        return write_licences(&files).map(|()| ExitCode::SUCCESS);
    }
    let metadata = cargo_metadata()?;
    let known = std::fs::read_to_string("e2e/harness/duplicate-crates").context("reading e2e/harness/duplicate-crates")?;
    let sources: Vec<(String, String)> = files.iter().filter(|(path, _)| is_source(path)).cloned().collect();

    let mut findings: Vec<Finding> = files.iter().flat_map(|(path, text)| stray::scan(path, text)).collect();
    findings.extend(licences::scan(&metadata));
    findings.extend(licences::scan_npm(&npm_lock()?));
    findings.extend(go_modules(&files)?);
    findings.extend(documents(&files));
    findings.extend(versions::scan(&metadata, &known));
    findings.extend(repetition::scan(&sources));

    for finding in &findings {
        println!("{finding}");
    }
    println!("audit: {} files, {} findings", files.len(), findings.len());
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn npm_lock() -> Result<serde_json::Value> {
    const LOCK: &str = "contracts/package-lock.json";
    let text = std::fs::read(LOCK).with_context(|| format!("reading {LOCK}"))?;
    serde_json::from_slice(&text).with_context(|| format!("reading {LOCK}"))
}

/// The go.mod files, by path.
fn go_mods(files: &[(String, String)]) -> impl Iterator<Item = (&Path, &str)> {
    files.iter().filter(|(path, _)| path.ends_with("/go.mod")).map(|(path, text)| (Path::new(path), text.as_str()))
}

/// The list is held against what every checkout has, and where a module's own files are here, against those.
fn go_modules(files: &[(String, String)]) -> Result<Vec<Finding>> {
    let list = std::fs::read_to_string(modules::LIST).with_context(|| format!("reading {}", modules::LIST))?;
    let cache = PathBuf::from(run("go", &["env", "GOMODCACHE"])?.trim());
    let texts: Vec<&str> = go_mods(files).map(|(_, text)| text).collect();
    Ok(modules::scan(&texts, &list, |module| licence_files(&cache.join(folder(module))).ok()))
}

/// What people are told to install.
fn documents(files: &[(String, String)]) -> Vec<Finding> {
    let named = |name: &str| files.iter().find(|(path, _)| path == name).map_or("", |(_, text)| text.as_str());
    let go_mods: Vec<&str> = go_mods(files).map(|(_, text)| text).collect();
    versions::scan_documents(&["README.md", "CONTRIBUTING.md"].map(|name| (name, named(name))), named("Cargo.toml"), &go_mods)
}

/// As Go names a module's folder in its cache: a capital is marked, for file systems that don't tell it from a small letter.
fn folder((path, version): &Module) -> String {
    let marked = |text: &str| -> String {
        text.chars().flat_map(|c| c.is_ascii_uppercase().then_some('!').into_iter().chain([c.to_ascii_lowercase()])).collect()
    };
    format!("{}@{}", marked(path), marked(version))
}

fn licence_files(folder: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let named = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(modules::is_licence_file));
    let files = named.map(|entry| entry.path()).filter(|path| path.is_file());
    files
        .map(|path| {
            std::fs::read(&path)
                .map(|text| String::from_utf8_lossy(&text).into_owned())
                .with_context(|| format!("reading {}", path.display()))
        })
        .collect()
}

fn write_licences(files: &[(String, String)]) -> Result<()> {
    let mut licences = BTreeMap::new();
    for (go_mod, _) in go_mods(files) {
        let folder = go_mod.parent().context("it lies in a folder")?.display().to_string();
        let told = run("go", &["-C", &folder, "mod", "download", "-json"])?;
        for module in serde_json::Deserializer::from_str(&told).into_iter::<serde_json::Value>() {
            let module = module.with_context(|| format!("reading what go mod download says of {folder}"))?;
            let text = |field: &str| module[field].as_str().map(str::to_owned).with_context(|| format!("{module} has no {field}"));
            let texts = licence_files(Path::new(&text("Dir")?))?;
            licences.insert((text("Path")?, text("Version")?), modules::recognise(&texts));
        }
    }
    std::fs::write(modules::LIST, modules::write(&licences)).with_context(|| format!("writing {}", modules::LIST))
}

fn is_source(path: &str) -> bool {
    [".rs", ".go", ".sol", ".sh"].iter().any(|ending| path.ends_with(ending))
}

/// Every tracked file that is text, with its text.
fn tracked_files() -> Result<Vec<(String, String)>> {
    let listed = run("git", &["ls-files", "-z"])?;
    let names = listed.split('\0').filter(|name| !name.is_empty() && Path::new(name).is_file());
    Ok(names.filter_map(|name| Some((name.to_owned(), std::fs::read_to_string(name).ok()?))).collect())
}

fn cargo_metadata() -> Result<serde_json::Value> {
    let host = run("rustc", &["--print", "host-tuple"])?;
    let text = run("cargo", &["metadata", "--format-version", "1", "--locked", "--filter-platform", host.trim()])?;
    serde_json::from_str(&text).context("reading what cargo metadata printed")
}

fn run(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output().with_context(|| format!("starting {program}"))?;
    anyhow::ensure!(output.status.success(), "{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    String::from_utf8(output.stdout).with_context(|| format!("reading what {program} printed"))
}

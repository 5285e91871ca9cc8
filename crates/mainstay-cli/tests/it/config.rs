//! What is configured: the block of docs/GATEWAY.md is what the code does without one.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use gateway::server::Config;

#[test]
fn the_documented_configuration_is_the_default() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/GATEWAY.md");
    let page = std::fs::read_to_string(page).expect("the guide is in the repository");
    let (_, block) = page
        .split_once("```toml\nlisten")
        .expect("the guide has the block of all keys");
    let (block, _) = block.split_once("```").expect("the block ends");
    let block = &format!("listen{block}");
    let documented: Config = toml::from_str(block).expect("the block is a configuration");
    assert_eq!(documented, Config::default());

    let keys = |text: &str| text.lines().filter(|line| line.contains(" = ")).count();
    let debug = format!("{:#?}", Config::default());
    let fields = debug
        .lines()
        .filter(|line| line.contains(": ") && !line.ends_with('{'))
        // Tables of their own, in another block.
        .filter(|line| !line.trim_start().starts_with("jobs: "))
        .count();
    assert_eq!(keys(block), fields, "a key is missing from the guide");
}

/// Where a demonstration that is configured so keeps its data.
fn data_of_a_demo(config: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("gateway.toml"), config).unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .args(["gateway", "--demo=1", "--config=gateway.toml", "--json"])
        .args(["--listen=127.0.0.1:0", "--http=127.0.0.1:0"])
        .env_remove("MAINSTAY_DATA")
        .current_dir(&dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(demo.stdout.take().unwrap());
    let read = out.read_line(&mut line);
    demo.kill().unwrap();
    demo.wait().unwrap();
    read.unwrap();
    let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
    ready["data"].as_str().unwrap().to_owned()
}

#[test]
fn a_demo_keeps_its_data_where_it_is_told_to_even_if_that_is_the_usual_place() {
    let usual = Config::default().data.display().to_string();
    assert_eq!(data_of_a_demo(&format!("data = {usual:?}\n")), usual);
    assert_ne!(data_of_a_demo("shards = 1\n"), usual);
}

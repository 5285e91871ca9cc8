//! The configuration block of docs/GATEWAY.md is what the code does without one.

use gateway::server::Config;

#[test]
fn the_documented_configuration_is_the_default() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/GATEWAY.md");
    let page = std::fs::read_to_string(page).expect("the guide is in the repository");
    let (_, block) = page
        .split_once("```toml\n")
        .expect("the guide has a toml block");
    let (block, _) = block.split_once("```").expect("the block ends");
    let documented: Config = toml::from_str(block).expect("the block is a configuration");
    assert_eq!(documented, Config::default());

    let keys = |text: &str| text.lines().filter(|line| line.contains(" = ")).count();
    let debug = format!("{:#?}", Config::default());
    let fields = debug
        .lines()
        .filter(|line| line.contains(": ") && !line.ends_with('{'))
        .count();
    assert_eq!(keys(block), fields, "a key is missing from the guide");
}

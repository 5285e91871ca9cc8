//! The commands of the workspace: `cargo xtask <command>`.

mod build_bpf;

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.split_first() {
        Some((command, rest)) if command == "build-bpf" => match build_bpf::run(rest) {
            Ok(()) => std::process::ExitCode::SUCCESS,
            Err(reason) => {
                #[expect(clippy::print_stderr, reason = "this is a command")]
                {
                    eprintln!("xtask: {reason}");
                }
                std::process::ExitCode::FAILURE
            }
        },
        _ => std::process::ExitCode::FAILURE,
    }
}

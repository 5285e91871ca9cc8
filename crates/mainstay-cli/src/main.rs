//! The `mainstay` command.
#![forbid(unsafe_code)]

mod doctor;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "mainstay", version, about)]
enum Cli {
    Doctor(doctor::DoctorArgs),
}

fn main() -> ExitCode {
    match Cli::parse() {
        Cli::Doctor(args) => doctor::run(&args),
    }
}

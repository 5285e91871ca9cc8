//! A device: `cargo run -p mainstay-gateway --features device --example device -- 127.0.0.1:7400 pump-7`
//!
//! Then send it a command, as often as you like; it does it once:
//! `curl -H 'Idempotency-Key: 1' -d '{"valve":"open"}' localhost:7480/v1/devices/pump-7/commands`

use std::error::Error;

use gateway::device::{Answer, Device};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let gateway = args.next().as_deref().unwrap_or("127.0.0.1:7400").parse()?;
    let id = args.next().unwrap_or_else(|| "pump-7".into());

    let mut done = 0;
    let device = Device::builder(gateway, &id)
        // What was done is remembered here, also when this process is killed.
        .journal(format!("{id}.journal"))
        .start(move |command| {
            done += 1;
            let payload = String::from_utf8_lossy(&command.payload);
            Answer::json(format!(r#"{{"done":{done},"payload":{payload}}}"#))
        })?;
    Ok(device.join()?)
}

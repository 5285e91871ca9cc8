//! Real-time scheduling of the calling thread.

/// Puts the calling thread under SCHED_FIFO at `priority` (1..=99), as sched(7) describes.
#[expect(
    unsafe_code,
    reason = "no safe wrapper of sched_setscheduler among the dependencies"
)]
pub(crate) fn set_fifo(priority: u8) -> std::io::Result<()> {
    // SAFETY: sched_param is plain integers; zero is a valid value of each.
    let mut param: libc::sched_param = unsafe { core::mem::zeroed() };
    param.sched_priority = i32::from(priority);
    // SAFETY: `param` lives across the call, which only reads it; 0 names the calling thread.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &param) } {
        -1 => Err(std::io::Error::last_os_error()),
        _ => Ok(()),
    }
}

//! The table on a terminal while a tool is at work.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use super::session::{Failure, Interval, Watch};

/// How often it is drawn.
const REDRAW: Duration = Duration::from_secs(1);

/// A table that redraws itself in place on a terminal.
pub(super) struct Live {
    enabled: bool,
    rows_max: usize,
    drawn: Instant,
    lines: usize,
}

impl Live {
    /// One that draws nothing where stdout is no terminal or not `wanted`; and at most `rows_max` rows.
    pub(super) fn new(wanted: bool, rows_max: usize) -> Self {
        Self {
            enabled: wanted && io::stdout().is_terminal(),
            rows_max,
            drawn: Instant::now(),
            lines: 0,
        }
    }

    /// Draws, if it is time to.
    pub(super) fn draw(&mut self, tool: &mut impl Watch) -> Result<(), Failure> {
        if !self.enabled || self.drawn.elapsed() < REDRAW {
            return Ok(());
        }
        tool.look()?;
        self.erase()?;
        let mut lines = tool.table(Interval::Since(self.drawn.elapsed()));
        let (columns, height) = size();
        shorten(&mut lines, self.rows_max, height);
        let mut out = io::stdout().lock();
        for line in &lines {
            // A line that wraps would be two to go back over.
            let line: String = line.chars().take(columns).collect();
            writeln!(out, "{line}")?;
        }
        self.lines = lines.len();
        self.drawn = Instant::now();
        Ok(out.flush()?)
    }

    /// Back to the first line of the table, and clear from there.
    pub(super) fn erase(&mut self) -> io::Result<()> {
        if self.lines > 0 {
            write!(io::stdout(), "\x1b[{}F\x1b[J", self.lines)?;
            self.lines = 0;
        }
        Ok(())
    }
}

/// To the headings and at most `rows_max` rows, and a line that tells of the others; all of that, and the
/// line below where the cursor rests, in `height`: what has left the screen cannot be drawn over.
fn shorten(lines: &mut Vec<String>, rows_max: usize, height: usize) {
    let fits = height.saturating_sub(1).max(1);
    let rows = lines.len().saturating_sub(1);
    if rows <= rows_max && lines.len() <= fits {
        return;
    }
    let shown = rows_max.min(fits.saturating_sub(2));
    lines.truncate(1 + shown);
    if fits > 1 {
        lines.push(format!("... and {} more", rows - shown));
    }
}

/// Columns and lines of the terminal.
fn size() -> (usize, usize) {
    let or_any = |n: u16| if n > 0 { n.into() } else { usize::MAX };
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) => (or_any(size.ws_col), or_any(size.ws_row)),
        Err(_) => (usize::MAX, usize::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::shorten;

    #[test]
    fn a_table_fits_above_the_cursor() {
        let shortened = |rows: usize, rows_max, height| {
            let mut lines = vec!["PID".to_owned()];
            lines.extend((1..=rows).map(|n| n.to_string()));
            shorten(&mut lines, rows_max, height);
            lines.join(" ")
        };
        assert_eq!(shortened(3, 20, usize::MAX), "PID 1 2 3");
        assert_eq!(shortened(3, 3, 5), "PID 1 2 3");
        assert_eq!(shortened(3, 2, usize::MAX), "PID 1 2 ... and 1 more");
        assert_eq!(shortened(3, 20, 4), "PID 1 ... and 2 more");
        assert_eq!(shortened(9, 20, 3), "PID ... and 9 more");
        assert_eq!(shortened(9, 20, 2), "PID");
        assert_eq!(shortened(9, 20, 0), "PID");
        assert_eq!(shortened(0, 20, 1), "PID");
    }
}

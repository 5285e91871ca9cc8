use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

/// A flame graph: stacks with a weight, merged where they begin alike, drawn as an SVG image with
/// the outermost frame at the bottom.
///
/// The image is still: it holds no script, so that mail programs and wikis show it. Browsers tell a
/// frame's full name, weight and share when the pointer rests on it.
///
/// ```
/// let mut graph = kernel_scope::FlameGraph::new("Where time went", "us");
/// graph.add(&["main", "read"], 30);
/// graph.add(&["main", "write"], 10);
/// let svg = graph.to_string();
/// assert!(svg.contains("<title>read: 30 us (75.0%)</title>"));
/// ```
#[derive(Debug, Clone, Default)]
pub struct FlameGraph {
    title: String,
    unit: String,
    root: Frame,
}

#[derive(Debug, Clone, Default)]
struct Frame {
    weight: u64,
    inner: BTreeMap<String, Frame>,
}

impl FlameGraph {
    /// An empty graph, of weights in `unit`.
    #[must_use]
    pub fn new(title: &str, unit: &str) -> Self {
        Self {
            title: title.into(),
            unit: unit.into(),
            root: Frame::default(),
        }
    }

    /// Adds a stack, outermost frame first. Frames beyond 250 are left out.
    pub fn add(&mut self, stack: &[impl AsRef<str>], weight: u64) {
        let mut frame = &mut self.root;
        frame.weight += weight;
        for name in stack.iter().take(DEPTH_MAX) {
            frame = frame.inner.entry(name.as_ref().to_owned()).or_default();
            frame.weight += weight;
        }
    }

    /// The weight of all stacks.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.root.weight
    }
}

const DEPTH_MAX: usize = 250;
const WIDTH: f64 = 1200.0;
const MARGIN: f64 = 10.0;
const TITLE_HEIGHT: usize = 40;
const FRAME_HEIGHT: usize = 16;
/// Of the 12-point monospaced letters.
const LETTER_WIDTH: f64 = 7.0;
/// Narrower frames are not drawn: nobody would see them.
const NARROWEST: f64 = 0.1;

/// The SVG document.
impl fmt::Display for FlameGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let height = TITLE_HEIGHT + (self.root.depth() + 1) * FRAME_HEIGHT;
        writeln!(
            f,
            r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="12">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="{}" y="24" text-anchor="middle" font-size="16">{}</text>"##,
            WIDTH / 2.0,
            escaped(&self.title),
        )?;
        let mut drawing = Drawing {
            out: f,
            graph: self,
            bottom: height - FRAME_HEIGHT,
        };
        drawing.frame("all", &self.root, MARGIN, 0)?;
        f.write_str("</svg>\n")
    }
}

impl Frame {
    fn depth(&self) -> usize {
        self.inner
            .values()
            .map(Frame::depth)
            .max()
            .map_or(1, |inner| inner + 1)
    }
}

struct Drawing<'d, 'f> {
    out: &'d mut fmt::Formatter<'f>,
    graph: &'d FlameGraph,
    bottom: usize,
}

impl Drawing<'_, '_> {
    fn frame(&mut self, name: &str, frame: &Frame, x: f64, level: usize) -> fmt::Result {
        let width = self.share(frame) * (WIDTH - 2.0 * MARGIN);
        if width < NARROWEST {
            return Ok(());
        }
        let y = self.bottom.saturating_sub(level * FRAME_HEIGHT);
        let (weight, unit) = (frame.weight, &self.graph.unit);
        let percent = 100.0 * self.share(frame);
        writeln!(
            self.out,
            r#"<g><title>{}: {weight} {} ({percent:.1}%)</title><rect x="{x:.2}" y="{y}" width="{width:.2}" height="{}" rx="1" fill="{}"/>{}</g>"#,
            escaped(name),
            escaped(unit),
            FRAME_HEIGHT - 1,
            color(name),
            label(name, x, y, width),
        )?;
        let mut x = x;
        for (name, inner) in &frame.inner {
            self.frame(name, inner, x, level + 1)?;
            x += self.share(inner) * (WIDTH - 2.0 * MARGIN);
        }
        Ok(())
    }

    /// Of all, 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "widths of a drawing")]
    fn share(&self, frame: &Frame) -> f64 {
        frame.weight as f64 / self.graph.root.weight.max(1) as f64
    }
}

/// As much of the name as fits, if that is worth reading.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of letters"
)]
fn label(name: &str, x: f64, y: usize, width: f64) -> String {
    let room = (width / LETTER_WIDTH) as usize;
    if room < 3 {
        return String::new();
    }
    let mut text: String = name.chars().take(room).collect();
    if text.len() < name.len() {
        text = name.chars().take(room - 2).chain("..".chars()).collect();
    }
    let mut label = String::new();
    let _ = write!(
        label,
        r#"<text x="{:.2}" y="{}">{}</text>"#,
        x + 3.0,
        y + 12,
        escaped(&text)
    );
    label
}

/// The same name has the same warm color everywhere.
fn color(name: &str) -> String {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let (red, green, blue) = (205 + hash % 50, 80 + (hash >> 16) % 130, (hash >> 32) % 60);
    format!("#{red:02x}{green:02x}{blue:02x}")
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            // XML has no way to write these.
            '\u{fffe}' | '\u{ffff}' => out.push('?'),
            control if control.is_control() => out.push('?'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{DEPTH_MAX, FlameGraph};

    #[test]
    fn stacks_that_begin_alike_share_their_frames() {
        let mut graph = FlameGraph::new("t", "us");
        graph.add(&["a", "b"], 3);
        graph.add(&["a", "c"], 1);
        let svg = graph.to_string();
        assert_eq!(graph.total(), 4);
        assert_eq!(svg.matches("<title>a: 4 us (100.0%)</title>").count(), 1);
        assert!(svg.contains("<title>b: 3 us (75.0%)</title>"), "{svg}");
        assert!(svg.contains("<title>c: 1 us (25.0%)</title>"), "{svg}");
        // all, a, and b beside c: three levels and the title.
        assert!(svg.contains(r#"height="104""#), "{svg}");
        // c begins where b ends: 10 + 3/4 of 1180.
        assert!(svg.contains(r#"x="895.00" y="56" width="295.00""#), "{svg}");
    }

    #[test]
    fn names_cannot_leave_their_place() {
        let mut graph = FlameGraph::new("<t>", "us");
        graph.add(&["</title><script>\u{1b}\"&\u{fffe}\u{ffff}"], 1);
        let svg = graph.to_string();
        assert!(!svg.contains("<script>") && !svg.contains('\u{1b}'));
        assert!(svg.contains("&lt;/title&gt;&lt;script&gt;?&quot;&amp;??"));
    }

    #[test]
    fn an_empty_graph_and_a_deep_one_can_be_drawn() {
        assert!(FlameGraph::new("t", "us").to_string().ends_with("</svg>\n"));
        let mut graph = FlameGraph::new("t", "us");
        graph.add(&vec!["deep"; 10_000], 1);
        assert_eq!(graph.to_string().matches("<rect").count(), DEPTH_MAX + 2);
    }
}

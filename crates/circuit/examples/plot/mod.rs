//! A line plot as SVG: enough for the examples of this package.

use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 200.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 45.0;
const COLOURS: [&str; 8] = [
    "#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#b07aa1", "#9c755f", "#555555",
];

pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

pub(crate) struct Plot {
    pub(crate) title: &'static str,
    pub(crate) x_name: &'static str,
    pub(crate) y_name: &'static str,
    /// Where the y axis is cut off.
    pub(crate) y_max: f64,
    /// Powers of ten, from 1 to `y_max`.
    pub(crate) log: bool,
    pub(crate) lines: Vec<Line>,
}

impl Plot {
    pub(crate) fn to_svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let x_max = points().map(|point| point.0).fold(1.0, f64::max);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}</text>\n",
            self.title
        );
        self.axes(&mut svg, x_max);
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            let path: Vec<String> = line
                .points
                .iter()
                .map(|&(x, y)| format!("{:.1},{:.1}", self.x(x, x_max), self.y(y)))
                .collect();
            let path = path.join(" ");
            let _ = writeln!(
                svg,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\" points=\"{path}\"/>"
            );
        }
        for (row, (line, colour)) in self.lines.iter().zip(COLOURS.iter().cycle()).enumerate() {
            let (x, y) = (WIDTH - RIGHT + 15.0, TOP + 18.0 * row as f64 + 10.0);
            let _ = writeln!(
                svg,
                "<text x=\"{x}\" y=\"{y}\" fill=\"{colour}\">{}</text>",
                line.name
            );
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn axes(&self, svg: &mut String, x_max: f64) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT},{TOP}V{bottom}H{right}\" fill=\"none\" stroke=\"black\"/>\n\
             <text x=\"{right}\" y=\"{}\" text-anchor=\"end\">{}</text>\n\
             <text x=\"14\" y=\"{}\" transform=\"rotate(-90 14 {})\">{}</text>",
            HEIGHT - 8.0,
            self.x_name,
            bottom,
            bottom,
            self.y_name
        );
        for part in 0..=5 {
            let value = x_max * f64::from(part) / 5.0;
            let x = self.x(value, x_max);
            let y = bottom + 16.0;
            let _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{value:.0}</text>"
            );
        }
        for value in self.y_ticks() {
            let y = self.y(value);
            let _ = writeln!(
                svg,
                "<path d=\"M{LEFT},{y:.1}H{right}\" stroke=\"#dddddd\"/>\n\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
                LEFT - 6.0,
                y + 4.0
            );
        }
    }

    fn y_ticks(&self) -> Vec<f64> {
        if self.log {
            let powers = (0..).map(|power| 10f64.powi(power));
            return powers.take_while(|value| *value <= self.y_max).collect();
        }
        (1..=5)
            .map(|part| self.y_max * f64::from(part) / 5.0)
            .collect()
    }

    fn x(&self, value: f64, x_max: f64) -> f64 {
        LEFT + (WIDTH - RIGHT - LEFT) * value / x_max
    }

    fn y(&self, value: f64) -> f64 {
        let share = if self.log {
            value.max(1.0).log10() / self.y_max.log10()
        } else {
            value / self.y_max
        };
        HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share.min(1.0)
    }
}

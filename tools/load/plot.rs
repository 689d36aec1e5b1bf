//! Plots as SVG that stretches to any width; the words around it are HTML, so that they keep their size.

use std::fmt::Write;

/// Points of one line; more are thinned out, each stretch keeping its greatest.
const POINT_COUNT_MAX: usize = 400;
/// Units of the drawing, whatever its size on the screen.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 200.0;

/// One line of a plot.
pub(crate) struct Line<'a> {
    pub(crate) name: &'a str,
    /// From left to right; where y is missing, so is the line.
    pub(crate) points: Vec<(f64, Option<f64>)>,
}

/// A plot with its title, legend and axes.
pub(crate) struct Plot<'a> {
    pub(crate) title: &'a str,
    /// What it shows, in a sentence.
    pub(crate) note: &'a str,
    pub(crate) y_unit: &'a str,
    pub(crate) x_unit: &'a str,
    /// The top of the y axis is this at least.
    pub(crate) y_least: f64,
    pub(crate) lines: Vec<Line<'a>>,
}

impl Plot<'_> {
    /// As a `figure`; nothing where there are no points.
    pub(crate) fn html(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        if points().all(|(_, y)| y.is_none()) {
            return String::new();
        }
        let x_max = points().map(|&(x, _)| x).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
        let y_max = round_up(points().filter_map(|&(_, y)| y).fold(self.y_least, f64::max));
        let mut html = String::new();
        let mut put = |text: String| html.push_str(&text);
        put(format!("<figure>\n<figcaption><h2>{}</h2><p>{}</p>", escaped(self.title), escaped(self.note)));
        if self.lines.len() > 1 {
            put("<ul class=\"legend\">".into());
            for (i, line) in self.lines.iter().enumerate() {
                put(format!("<li class=\"l{i}\">{}</li>", escaped(line.name)));
            }
            put("</ul>".into());
        }
        put("</figcaption>\n<div class=\"plot\"><div class=\"y\">".into());
        for part in [4.0, 3.0, 2.0, 1.0, 0.0] {
            put(format!("<span>{}</span>", label(y_max * part / 4.0, y_max, self.y_unit)));
        }
        put(format!(
            "</div><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">",
            escaped(self.title)
        ));
        for part in 0..=4 {
            let y = HEIGHT * f64::from(part) / 4.0;
            put(format!("<path class=\"grid\" d=\"M0 {y}H{WIDTH}\"/>"));
        }
        for (i, line) in self.lines.iter().enumerate() {
            put(format!("<path class=\"line l{i}\" d=\"{}\"/>", path(&line.points, x_max, y_max)));
        }
        put("</svg><div class=\"x\">".into());
        for part in [0.0, 1.0, 2.0, 3.0, 4.0] {
            put(format!("<span>{}</span>", label(x_max * part / 4.0, x_max, self.x_unit)));
        }
        put("</div></div>\n</figure>\n".into());
        html
    }
}

fn path(points: &[(f64, Option<f64>)], x_max: f64, y_max: f64) -> String {
    let mut path = String::new();
    let mut is_drawing = false;
    for stretch in points.chunks(points.len().div_ceil(POINT_COUNT_MAX).max(1)) {
        let greatest = stretch.iter().filter_map(|&(x, y)| Some((x, y?))).max_by(|a, b| a.1.total_cmp(&b.1));
        let Some((x, y)) = greatest else {
            is_drawing = false;
            continue;
        };
        let (x, y) = (WIDTH * x / x_max, HEIGHT * (1.0 - y / y_max));
        let step = if is_drawing { 'L' } else { 'M' };
        let _ = write!(path, "{step}{x:.1} {y:.1}"); // A `String` takes everything.
        if !is_drawing {
            path.push_str("h0.1"); // A point by itself is seen, too.
        }
        is_drawing = true;
    }
    path
}

/// The next of 1, 2, 4, 5, 8 and ten times so: quarters of it are short.
fn round_up(value: f64) -> f64 {
    if !value.is_finite() || value <= 0.0 {
        return 1.0;
    }
    let ten = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 5.0, 6.0, 8.0, 10.0];
    steps.iter().map(|step| step * ten).find(|&step| step >= value * 0.999_999).unwrap_or(10.0 * ten)
}

/// A value on an axis that ends at `most`.
fn label(value: f64, most: f64, unit: &str) -> String {
    let number = match most {
        most if most >= 10_000.0 => format!("{}k", short(value / 1_000.0, 1)),
        most if most >= 100.0 => short(value, 0),
        most if most >= 4.0 => short(value, 1),
        _ => short(value, 3),
    };
    format!("{number}{unit}")
}

/// Without zeros at the end.
fn short(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Text in HTML, also between quotes.
pub(crate) fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut html, c| {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c => html.push(c),
        }
        html
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, expected) in
            [(0.0, 1.0), (0.9, 1.0), (1.0, 1.0), (3.3, 4.0), (101.0, 120.0), (8_001.0, 10_000.0)]
        {
            assert!((round_up(value) - expected).abs() < 1e-9, "{value}: {}", round_up(value));
        }
        let labels = |most: f64| [0.0, 0.25, 1.0].map(|part| label(most * part, most, " ms"));
        assert_eq!(labels(1.0), ["0 ms", "0.25 ms", "1 ms"]);
        assert_eq!(labels(6.993), ["0 ms", "1.7 ms", "7 ms"]);
        assert_eq!(labels(120.0), ["0 ms", "30 ms", "120 ms"]);
        assert_eq!(labels(24_000.0), ["0k ms", "6k ms", "24k ms"]);
    }

    #[test]
    fn a_long_line_keeps_its_peaks_and_a_gap_is_a_gap() {
        let mut points: Vec<(f64, Option<f64>)> = (0..86_400).map(|i| (f64::from(i), Some(1.0))).collect();
        points[50_001].1 = Some(9.0);
        let long = path(&points, 86_400.0, 10.0);
        assert!(long.len() < 20 * POINT_COUNT_MAX && long.contains(" 20.0"), "the peak: {long}");
        let gap = path(&[(0.0, Some(1.0)), (1.0, None), (2.0, Some(1.0)), (3.0, Some(1.0))], 3.0, 1.0);
        assert_eq!(gap.matches('M').count(), 2);
        assert_eq!(gap.matches('L').count(), 1);
    }

    #[test]
    fn nothing_is_not_drawn() {
        let lines = vec![Line { name: "a", points: vec![(0.0, None)] }];
        let plot = Plot { title: "t", note: "", y_unit: "", x_unit: "", y_least: 0.0, lines };
        assert_eq!(plot.html(), "");
        assert_eq!(escaped("<a href=\"x\">'&"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;");
    }
}

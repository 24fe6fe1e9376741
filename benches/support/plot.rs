//! Bar charts as SVG: a row of panels, each with groups of bars, one for each of the two (or more) that are measured.

use std::error::Error;
use std::path::Path;

use plotters::prelude::{
    BLACK, ChartBuilder, Color as _, IntoDrawingArea as _, IntoFont as _, RGBColor, Rectangle, SVGBackend,
    Text, WHITE,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::report::shown;

/// One chart, with a scale of its own.
#[derive(Debug)]
pub struct Panel {
    pub title: String,
    /// The name of each group, and its bars in the order of the series.
    pub groups: Vec<(String, Vec<f64>)>,
}

const COLOURS: [RGBColor; 4] =
    [RGBColor(38, 99, 176), RGBColor(232, 146, 54), RGBColor(90, 160, 90), RGBColor(150, 110, 170)];

/// Of the title and the names of the series, and of a row of panels.
const HEIGHT: (u32, u32) = (56, 244);
/// Of a panel's frame, of each bar, and of a row of panels at the most.
const WIDTH: (u32, u32, u32) = (60, 52, 1100);

pub fn draw(path: &Path, title: &str, series: &[&str], panels: &[Panel]) -> Result<(), Box<dyn Error>> {
    // Each group has a bar's width between it and the next; without series it is one bar.
    let room = series.len().max(1) + 1;
    let width_of = |panel: &Panel| (WIDTH.0 + WIDTH.1 * (panel.groups.len() * room) as u32).max(190);
    let mut rows: Vec<(u32, Vec<&Panel>)> = Vec::new();
    for panel in panels {
        match rows.last_mut() {
            Some((width, row)) if *width + width_of(panel) <= WIDTH.2 => {
                *width += width_of(panel);
                row.push(panel);
            }
            _ => rows.push((width_of(panel), vec![panel])),
        }
    }
    let width = rows.iter().map(|(width, _)| *width).max().unwrap_or(0).max(560);
    let root = SVGBackend::new(path, (width, HEIGHT.0 + HEIGHT.1 * rows.len() as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    let font = |size: i32| ("sans-serif", size).into_font();
    root.draw(&Text::new(title.to_owned(), (14, 10), font(17).color(&BLACK)))?;
    let mut x = 16;
    for (name, colour) in series.iter().zip(COLOURS) {
        root.draw(&Rectangle::new([(x, 36), (x + 12, 48)], colour.filled()))?;
        root.draw(&Text::new((*name).to_owned(), (x + 18, 36), font(13).color(&BLACK)))?;
        x += 36 + 8 * name.len() as i32;
    }
    let mut next = (0, HEIGHT.0);
    for (panel, row) in
        rows.iter().enumerate().flat_map(|(at, (_, row))| row.iter().map(move |&panel| (panel, at as u32)))
    {
        let top = HEIGHT.0 + HEIGHT.1 * row;
        let left = if next.1 == top { next.0 } else { 0 };
        next = (left + width_of(panel), top);
        let area = root.clone().shrink((left, top), (width_of(panel), HEIGHT.1));
        let bars = || panel.groups.iter().flat_map(|(_, bars)| bars).copied().filter(|bar| bar.is_finite());
        let top = bars().fold(0.0, f64::max).max(f64::MIN_POSITIVE) * 1.15;
        let room = room as f64;
        let mut chart = ChartBuilder::on(&area)
            .caption(&panel.title, font(13))
            .margin(8)
            .x_label_area_size(26)
            .build_cartesian_2d(0.0..room * panel.groups.len() as f64, 0.0..top)?;
        let line = BLACK.mix(0.4);
        let end = room * panel.groups.len() as f64;
        chart.draw_series([Rectangle::new([(0.0, 0.0), (end, 0.0)], line.stroke_width(1))])?;
        let above = Pos::new(HPos::Center, VPos::Bottom);
        for (group, (name, bars)) in panel.groups.iter().enumerate() {
            let left = group as f64 * room + 0.5;
            for (at, (&bar, colour)) in bars.iter().zip(COLOURS).enumerate() {
                let (from, to) = (left + at as f64 + 0.06, left + at as f64 + 0.94);
                if bar.is_finite() {
                    chart.draw_series([Rectangle::new([(from, 0.0), (to, bar)], colour.filled())])?;
                }
                let label = font(12).color(&BLACK).pos(above);
                let height = if bar.is_finite() { bar } else { 0.0 };
                chart.draw_series([Text::new(
                    shown(bar),
                    ((from + to) / 2.0, height + top * 0.01),
                    label,
                )])?;
            }
            let below = font(12).color(&BLACK).pos(Pos::new(HPos::Center, VPos::Top));
            let middle = chart.backend_coord(&(left + (room - 1.0) / 2.0, 0.0));
            root.draw(&Text::new(name.clone(), (middle.0, middle.1 + 6), below))?;
        }
    }
    root.present()?;
    Ok(())
}

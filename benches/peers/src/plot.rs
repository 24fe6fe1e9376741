//! Bar charts in SVG, one of each kind of row: a panel for each figure, in it a group of bars for each row.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::rows::{Kind, Row};
use crate::run::StackName;
use crate::stack::{Failure, Result};
use crate::table::{Table, short, unit};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const WIDTH: u32 = 760;
const TITLE: i32 = 56;
const PANEL: u32 = 190;
const MARGIN: i32 = 20;
const INK: RGBColor = RGBColor(51, 51, 51);
const PALE: RGBColor = RGBColor(200, 200, 200);

/// Draws a file for each kind of row into the folder.
pub fn draw(table: &Table, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    for kind in table.kinds() {
        chart(table, kind, &folder.join(format!("{}.svg", kind.name)))?;
    }
    Ok(())
}

fn chart(table: &Table, kind: Kind, file: &Path) -> Result<()> {
    let height = TITLE as u32 + PANEL * kind.figures.len() as u32;
    let area = SVGBackend::new(file, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE).map_err(failure)?;
    text(&area, kind.title, (MARGIN, 10), 17, HPos::Left)?;
    let mut x = MARGIN;
    for stack in table.stacks() {
        bar(&area, (x, 36), (x + 10, 46), color(*stack))?;
        let name = format!("{} {}", stack.letter(), stack.name());
        text(&area, &name, (x + 15, 35), 12, HPos::Left)?;
        x += 150;
    }
    let rows: Vec<&Row> = table.rows_of(kind).collect();
    for figure in 0..kind.figures.len() {
        panel(&area, table, &rows, figure, TITLE + PANEL as i32 * figure as i32)?;
    }
    area.present().map_err(failure)
}

/// One figure of the rows, from `top` on.
fn panel(area: &Area<'_>, table: &Table, rows: &[&Row], figure: usize, top: i32) -> Result<()> {
    let (ground, room) = (top + PANEL as i32 - 34, PANEL as i32 - 80);
    let Some(first) = rows.first() else { return Ok(()) };
    let what = &first.kind.figures[figure];
    let name = if what.name.is_empty() { String::new() } else { format!("{}, ", what.name) };
    text(area, &format!("{name}{}", unit(what)), (MARGIN, top + 8), 13, HPos::Left)?;
    area.draw(&PathElement::new([(MARGIN, ground), (WIDTH as i32 - MARGIN, ground)], PALE))
        .map_err(failure)?;

    let medians = |stack| rows.iter().filter_map(move |row| table.median(row, figure, stack));
    let most = table.stacks().iter().copied().flat_map(medians).fold(f64::MIN_POSITIVE, f64::max);
    let group = (WIDTH as i32 - 2 * MARGIN) / rows.len() as i32;
    let wide = (group / (table.stacks().len() as i32 + 1)).min(46);
    for (at, row) in rows.iter().enumerate() {
        let middle = MARGIN + group * at as i32 + group / 2;
        text(area, row.name, (middle, ground + 8), 12, HPos::Center)?;
        let mut left = middle - wide * table.stacks().len() as i32 / 2;
        for stack in table.stacks() {
            let value = table.median(row, figure, *stack);
            let high = value.map_or(0, |value| (value / most * f64::from(room)) as i32);
            bar(area, (left + 2, ground - high), (left + wide - 2, ground), color(*stack))?;
            let shown = value.map_or("–".into(), short);
            text(area, &shown, (left + wide / 2, ground - high - 14), 11, HPos::Center)?;
            left += wide;
        }
    }
    Ok(())
}

fn bar(area: &Area<'_>, from: (i32, i32), to: (i32, i32), color: RGBColor) -> Result<()> {
    area.draw(&Rectangle::new([from, to], color.filled())).map_err(failure)
}

fn text(area: &Area<'_>, text: &str, at: (i32, i32), size: i32, side: HPos) -> Result<()> {
    let style = ("sans-serif", size).into_font().color(&INK).pos(Pos::new(side, VPos::Top));
    area.draw(&Text::new(text, at, style)).map_err(failure)
}

fn color(stack: StackName) -> RGBColor {
    match stack {
        StackName::M => RGBColor(34, 104, 176),
        StackName::B => RGBColor(132, 172, 212),
        StackName::E => RGBColor(222, 133, 41),
        StackName::D => RGBColor(75, 148, 88),
        StackName::G => RGBColor(148, 112, 170),
    }
}

/// The backend's errors borrow from nothing, but their type names the backend.
fn failure(error: impl std::fmt::Display) -> Failure {
    error.to_string().into()
}

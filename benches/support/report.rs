//! The table at the end of a benchmark, the plot beside it, and what was asked for on the command line.

use std::path::PathBuf;

use super::plot::{self, Panel};

/// What the command line asks for, of those benchmarks that are not criterion's.
#[derive(Debug)]
pub struct Asked {
    names: Vec<String>,
    /// Without it somebody only tries whether it runs (`cargo test --benches`).
    pub is_bench: bool,
}

impl Asked {
    pub fn from_args() -> Asked {
        let arguments = || std::env::args().skip(1);
        Asked {
            names: arguments().filter(|argument| !argument.starts_with('-')).collect(),
            is_bench: arguments().any(|argument| argument == "--bench"),
        }
    }

    /// Whether the job of this name is wanted: all are, or those with one of the given words in their names.
    pub fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|asked| name.contains(asked))
    }

    /// So many when it is a benchmark, and otherwise as few as there can be.
    pub fn times(&self, count: usize) -> usize {
        if self.is_bench { count } else { 1 }
    }
}

/// A table in Markdown.
#[derive(Debug)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<(String, Vec<f64>)>,
}

impl Table {
    /// The first of the columns has the rows' names.
    pub fn new(columns: &[&str]) -> Table {
        Table { head: columns.iter().map(|&column| column.to_owned()).collect(), rows: Vec::new() }
    }

    pub fn row(&mut self, name: &str, figures: Vec<f64>) {
        self.rows.push((name.to_owned(), figures));
    }

    /// Nothing, if there are no rows.
    pub fn print(&self) {
        if self.rows.is_empty() {
            return;
        }
        let mut lines = vec![self.head.clone()];
        for (name, figures) in &self.rows {
            lines.push(
                std::iter::once(name.clone()).chain(figures.iter().map(|&figure| shown(figure))).collect(),
            );
        }
        let width = |column: usize| {
            lines
                .iter()
                .filter_map(|line| line.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        println!();
        for (at, line) in lines.iter().enumerate() {
            let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            println!("| {} |", cells.collect::<Vec<_>>().join(" | "));
            if at == 0 {
                let rules = widths.iter().enumerate().map(|(column, &width)| match column {
                    0 => "-".repeat(width + 2),
                    _ => format!("{}:", "-".repeat(width + 1)),
                });
                println!("|{}|", rules.collect::<Vec<_>>().join("|"));
            }
        }
        println!();
    }

    /// A panel with a group of bars for each row, of the figures in these columns.
    pub fn panel(&self, title: &str, columns: &[usize]) -> Panel {
        let groups = self.rows.iter().map(|(name, figures)| {
            let bars = columns.iter().filter_map(|&column| figures.get(column - 1).copied());
            (name.clone(), bars.collect())
        });
        Panel { title: title.to_owned(), groups: groups.collect() }
    }

    /// A panel for each row, with its name for a title: for rows that are of different sizes.
    pub fn panels(&self, columns: &[usize]) -> Vec<Panel> {
        let panel = |(name, figures): &(String, Vec<f64>)| {
            let bars = columns.iter().filter_map(|&column| figures.get(column - 1).copied());
            Panel { title: name.clone(), groups: vec![(String::new(), bars.collect())] }
        };
        self.rows.iter().map(panel).collect()
    }

    /// Writes the plot `name.svg` into the directory that the variable `SVG` names, if it does and there are rows.
    pub fn plot(&self, name: &str, title: &str, series: &[&str], panels: &[Panel]) {
        let Some(directory) = std::env::var_os("SVG").map(PathBuf::from) else { return };
        if self.rows.is_empty() {
            return;
        }
        let path = directory.join(name).with_extension("svg");
        std::fs::create_dir_all(&directory).expect("the directory of the plots");
        plot::draw(&path, title, series, panels).expect("a plot");
        println!("{}", path.display());
    }
}

/// Three figures or more; what is not known is a dash.
pub fn shown(figure: f64) -> String {
    match figure.abs() {
        size if size.is_nan() => "–".to_owned(),
        100.0.. => format!("{figure:.0}"),
        // A share of which every hundredth counts.
        99.0.. => format!("{figure:.2}"),
        10.0.. => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

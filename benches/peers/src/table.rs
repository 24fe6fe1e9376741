//! The results: medians, and ratios within the rounds.

use std::collections::HashMap;
use std::fmt;

use serde_json::json;

use crate::rows::{Figure, Kind, Row};
use crate::run::StackName;
use crate::stack::Result;

/// All results.
#[derive(Debug)]
pub struct Table {
    stacks: Vec<StackName>,
    rows: Vec<Row>,
    /// By row and stack.
    results: HashMap<(&'static str, StackName), Vec<Round>>,
    failures: Vec<(&'static str, StackName, String)>,
}

/// A round's number, and the values of its run.
type Round = (u64, Vec<f64>);

impl Table {
    /// An empty one.
    pub fn new(stacks: &[StackName]) -> Table {
        let (rows, results, failures) = (Vec::new(), HashMap::new(), Vec::new());
        Table { stacks: stacks.to_vec(), rows, results, failures }
    }

    /// Enters the values of a run.
    pub fn add(&mut self, row: &Row, stack: StackName, round: u64, values: Vec<f64>) {
        self.enter(row);
        self.results.entry((row.name, stack)).or_default().push((round, values));
    }

    /// Enters a run that has failed, and why.
    pub fn fail(&mut self, row: &Row, stack: StackName, why: String) {
        self.enter(row);
        self.failures.push((row.name, stack, why));
    }

    /// The stacks, in the order of the columns.
    pub fn stacks(&self) -> &[StackName] {
        &self.stacks
    }

    /// The kinds of the rows, in their order.
    pub fn kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<Kind> = self.rows.iter().map(|row| row.kind).collect();
        kinds.dedup();
        kinds
    }

    /// The rows of a kind.
    pub fn rows_of(&self, kind: Kind) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.kind == kind)
    }

    /// The median of a figure over the rounds.
    pub fn median(&self, row: &Row, figure: usize, stack: StackName) -> Option<f64> {
        let rounds = self.results.get(&(row.name, stack))?;
        median(rounds.iter().map(|(_, values)| values[figure]).collect())
    }

    /// The median of the ratios of M to a stack, within each round.
    fn ratio(&self, row: &Row, figure: usize, stack: StackName) -> Option<f64> {
        let ours = self.results.get(&(row.name, StackName::M))?;
        let theirs = self.results.get(&(row.name, stack))?;
        let ratios = ours.iter().filter_map(|(round, values)| {
            let (_, other) = theirs.iter().find(|(other, _)| other == round)?;
            let ratio = values[figure] / other[figure];
            ratio.is_finite().then_some(ratio)
        });
        median(ratios.collect())
    }

    fn enter(&mut self, row: &Row) {
        if self.rows.last().is_none_or(|last| last.name != row.name) {
            self.rows.push(*row);
        }
    }

    /// All values, of every round.
    pub fn json(&self) -> Result<String> {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                let values = |stack: &StackName| {
                    let rounds = self.results.get(&(row.name, *stack)).map(Vec::as_slice).unwrap_or_default();
                    let rounds: Vec<_> = rounds.iter().map(|(_, values)| values).collect();
                    (stack.name().to_owned(), json!(rounds))
                };
                let figures: Vec<_> = row
                    .kind
                    .figures
                    .iter()
                    .map(|figure| json!({ "name": figure.name, "unit": figure.unit }))
                    .collect();
                let rounds: serde_json::Map<_, _> = self.stacks.iter().map(values).collect();
                json!({ "row": row.name, "figures": figures, "rounds": rounds })
            })
            .collect();
        Ok(serde_json::to_string_pretty(&rows)?)
    }
}

/// In Markdown.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let others: Vec<StackName> =
            self.stacks.iter().copied().filter(|stack| *stack != StackName::M).collect();
        let ratios = if self.stacks.contains(&StackName::M) { others.as_slice() } else { &[] };
        write!(f, "| {:<30} | {:<11} ", "", "unit")?;
        self.stacks.iter().try_for_each(|stack| write!(f, "| {:>8} ", stack.letter()))?;
        ratios.iter().try_for_each(|stack| write!(f, "| {:>6} ", format!("M/{}", stack.letter())))?;
        write!(f, "|\n|---|---")?;
        (0..self.stacks.len() + ratios.len()).try_for_each(|_| f.write_str("|--:"))?;
        f.write_str("|\n")?;
        for row in &self.rows {
            for (at, figure) in row.kind.figures.iter().enumerate() {
                write!(f, "| {:<30} | {:<11} ", label(row, figure), unit(figure))?;
                for stack in &self.stacks {
                    write!(f, "| {:>8} ", self.median(row, at, *stack).map_or("–".into(), short))?;
                }
                for stack in ratios {
                    let ratio = self.ratio(row, at, *stack).map(|ratio| format!("{ratio:.2}"));
                    write!(f, "| {:>6} ", ratio.as_deref().unwrap_or("–"))?;
                }
                f.write_str("|\n")?;
            }
        }
        for stack in &self.stacks {
            write!(f, "\n{}: {}", stack.letter(), stack.name())?;
        }
        f.write_str("\n↑ more is better, ↓ less is better\n")?;
        for (row, stack, why) in &self.failures {
            write!(f, "\n{row}, {}: {why}", stack.letter())?;
        }
        Ok(())
    }
}

/// The name of a figure of a row.
pub fn label(row: &Row, figure: &Figure) -> String {
    if figure.name.is_empty() { row.name.to_owned() } else { format!("{}, {}", row.name, figure.name) }
}

/// The unit, and which way is better.
pub fn unit(figure: &Figure) -> String {
    format!("{} {}", figure.unit, if figure.more_is_better { '↑' } else { '↓' })
}

/// With three digits.
pub fn short(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => None,
        len if len % 2 == 1 => Some(values[half]),
        _ => Some((values[half - 1] + values[half]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::rows::ROWS;

    #[test]
    fn a_ratio_is_of_the_same_round() {
        let mut table = Table::new(&StackName::ALL);
        let row = &ROWS[0];
        for (round, ours, theirs) in [(0, 1.0, 10.0), (1, 10.0, 5.0), (2, 100.0, 50.0)] {
            table.add(row, StackName::M, round, vec![ours]);
            table.add(row, StackName::E, round, vec![theirs]);
        }
        assert_eq!(table.ratio(row, 0, StackName::E), Some(2.0));
        assert_eq!(table.median(row, 0, StackName::M), Some(10.0));
        assert_eq!(table.median(row, 0, StackName::D), None);
        assert!(table.to_string().contains("reliable 64 B"));
    }

    #[test]
    fn why_a_run_has_failed_is_printed() {
        let mut table = Table::new(&StackName::ALL);
        table.fail(&ROWS[0], StackName::G, "it hung".into());
        assert!(table.to_string().contains("reliable 64 B, G: it hung"));
    }
}

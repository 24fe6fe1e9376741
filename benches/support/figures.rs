//! From many figures to the ones that are shown.

/// The median of what was measured; not a number of nothing.
pub fn median(mut values: Vec<f64>) -> f64 {
    percentile(&mut values, 50)
}

/// So many per cent of the values are smaller.
pub fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() * percent / 100).copied().unwrap_or(f64::NAN)
}

/// Medians of some figures of the two, measured in turn.
#[derive(Debug, Clone, Copy)]
pub struct Pairs<const N: usize> {
    pub mesh: [f64; N],
    pub bare: [f64; N],
    /// The mesh's figure by the bare crate's, within each pair.
    pub ratio: [f64; N],
    /// The least of the mesh's figures by the least of the bare crate's.
    pub ratio_of_least: [f64; N],
}

/// Measures the two in turn, so many times, so that whatever else the machine does meets both alike.
pub fn in_turn<const N: usize>(
    pairs: usize,
    mut mesh: impl FnMut() -> [f64; N],
    mut bare: impl FnMut() -> [f64; N],
) -> Pairs<N> {
    let (mut of_mesh, mut of_bare) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        // Who is first changes.
        if pair % 2 == 0 {
            of_mesh.push(mesh());
            of_bare.push(bare());
        } else {
            of_bare.push(bare());
            of_mesh.push(mesh());
        }
    }
    let ratios = of_mesh.iter().zip(&of_bare);
    let ratios = ratios.map(|(mesh, bare)| std::array::from_fn(|figure| mesh[figure] / bare[figure]));
    let ratios: Vec<[f64; N]> = ratios.collect();
    let (least, least_of_bare) = (least(&of_mesh), least(&of_bare));
    Pairs {
        mesh: medians(&of_mesh),
        bare: medians(&of_bare),
        ratio: medians(&ratios),
        ratio_of_least: std::array::from_fn(|figure| least[figure] / least_of_bare[figure]),
    }
}

fn medians<const N: usize>(measured: &[[f64; N]]) -> [f64; N] {
    std::array::from_fn(|figure| median(measured.iter().map(|figures| figures[figure]).collect()))
}

fn least<const N: usize>(measured: &[[f64; N]]) -> [f64; N] {
    std::array::from_fn(|figure| measured.iter().map(|figures| figures[figure]).fold(f64::INFINITY, f64::min))
}

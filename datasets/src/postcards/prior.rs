//! The published prior: how often each value comes when nothing is asked for.
//!
//! The four facets are independent; within a facet no two values are equally likely, so that a
//! model's own prior can be told from a uniform one.

use super::{Color, Factors, Setting, Style, Subject};

/// Shares of [`Subject::ALL`], in that order; they sum to 1.
pub const SUBJECTS: [f64; 12] =
    [0.15, 0.13, 0.12, 0.105, 0.095, 0.085, 0.075, 0.065, 0.055, 0.05, 0.04, 0.03];
/// Shares of [`Color::ALL`], in that order; they sum to 1.
pub const COLORS: [f64; 8] = [0.22, 0.18, 0.15, 0.13, 0.11, 0.09, 0.07, 0.05];
/// Shares of [`Setting::ALL`], in that order; they sum to 1.
pub const SETTINGS: [f64; 4] = [0.40, 0.27, 0.20, 0.13];
/// Shares of [`Style::ALL`], in that order; they sum to 1.
pub const STYLES: [f64; 3] = [0.50, 0.30, 0.20];

/// Prior probability of a subject, in (0, 1).
pub fn subject(subject: Subject) -> f64 {
    SUBJECTS[subject.position()]
}

/// Prior probability of a color, in (0, 1).
pub fn color(color: Color) -> f64 {
    COLORS[color.position()]
}

/// Prior probability of a setting, in (0, 1).
pub fn setting(setting: Setting) -> f64 {
    SETTINGS[setting.position()]
}

/// Prior probability of a style, in (0, 1).
pub fn style(style: Style) -> f64 {
    STYLES[style.position()]
}

/// Prior probability of a combination: the product over the independent facets.
pub fn joint(factors: Factors) -> f64 {
    subject(factors.subject)
        * color(factors.color)
        * setting(factors.setting)
        * style(factors.style)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::postcards::{Facet, scene};

    fn facets() -> [&'static [f64]; 4] {
        [&SUBJECTS, &COLORS, &SETTINGS, &STYLES]
    }

    /// Upper 1e-4 quantile of χ² by Wilson and Hilferty's cube; within 1 % from 2 degrees on.
    fn chi_square_limit(degrees: f64) -> f64 {
        let spread = 2.0 / (9.0 * degrees);
        degrees * (1.0 - spread + 3.719 * spread.sqrt()).powi(3)
    }

    fn chi_square(counts: &[f64], shares: &[f64], n: f64) -> f64 {
        let term = |(count, share): (&f64, &f64)| (count - n * share).powi(2) / (n * share);
        counts.iter().zip(shares).map(term).sum()
    }

    #[test]
    fn shares_sum_to_one_and_fall_strictly() {
        for shares in facets() {
            assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            assert!(shares.windows(2).all(|pair| pair[0] > pair[1]), "{shares:?}");
        }
    }

    #[test]
    fn hundred_thousand_scenes_follow_the_prior() {
        const N: u32 = 100_000;
        let mut counts = facets().map(|shares| vec![0.0; shares.len()]);
        let mut joint_counts: BTreeMap<Factors, f64> = BTreeMap::new();
        for index in 0..u64::from(N) {
            let factors = scene(11, index).factors;
            counts[0][factors.subject.position()] += 1.0;
            counts[1][factors.color.position()] += 1.0;
            counts[2][factors.setting.position()] += 1.0;
            counts[3][factors.style.position()] += 1.0;
            *joint_counts.entry(factors).or_insert(0.0) += 1.0;
        }
        for ((counts, shares), facet) in counts.iter().zip(facets()).zip(Facet::ALL) {
            let limit = chi_square_limit(f64::from(u32::try_from(shares.len()).unwrap() - 1));
            let found = chi_square(counts, shares, f64::from(N));
            assert!(found < limit, "{}: {found} ≥ {limit}", facet.name());
        }
        let mut all = (Vec::new(), Vec::new());
        for subject in Subject::ALL {
            for color in Color::ALL {
                for setting in Setting::ALL {
                    for style in Style::ALL {
                        let factors = Factors { subject, color, setting, style };
                        all.0.push(joint_counts.get(&factors).copied().unwrap_or(0.0));
                        all.1.push(joint(factors));
                    }
                }
            }
        }
        assert!((all.1.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        let found = chi_square(&all.0, &all.1, f64::from(N));
        assert!(found < chi_square_limit(1151.0), "joint: {found}");
    }

    #[test]
    fn thesaurus_publishes_the_same_prior() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../eval/thesauri/postcards.yaml");
        let text = fs_err::read_to_string(path).unwrap();
        let all_shares = facets();
        for (facet, shares) in Facet::ALL.iter().zip(all_shares) {
            for (name, share) in facet.values().iter().zip(shares) {
                let entry = format!("\n  {name}: {{ facet: {},", facet.name());
                let line = text.split_once(&entry).map(|(_, rest)| rest.lines().next().unwrap());
                let line = line.unwrap_or_else(|| panic!("no entity `{name}`"));
                assert!(line.contains(&format!(" prior: {share},")), "`{name}`: {line}");
            }
        }
    }
}

//! Adding up differences of counters, by phase, over attempts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Domain, EnergySource, Phase, Unavailable};

/// No processor package draws more for long; a counter cannot wrap twice within wrap range / this power.
const MAX_PACKAGE_WATTS: f64 = 1000.0;
const UJ_PER_KWH: f64 = 3.6e12;
const UJ_PER_WH: f64 = 3.6e9;

/// Energy of a run over all its attempts. A domain without entry was never measured: that is null, not 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnergyTotals {
    /// Microjoules by domain and phase.
    pub measured_uj: BTreeMap<Domain, BTreeMap<Phase, u64>>,
    /// Where the numbers of a domain come from, or why there are none.
    pub sources: BTreeMap<Domain, String>,
    /// Attempts that were added up.
    pub attempts: u64,
    /// Intervals that could not be measured: a counter was reset or could not be read.
    pub lost_intervals: u64,
}

/// The carbon intensity of the grid, with its origin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Carbon {
    /// Grams of CO2 per kWh.
    pub g_per_kwh: f64,
    /// ISO 3166 alpha-3, if the value is a country's.
    pub country: Option<String>,
    /// Year of the value.
    pub year: Option<u16>,
    /// Whom to name.
    pub attribution: String,
}

impl EnergyTotals {
    /// Microjoules of a domain over all phases; `None` if it was never measured.
    pub fn domain_uj(&self, domain: Domain) -> Option<u64> {
        self.measured_uj.get(&domain).map(|phases| phases.values().sum())
    }

    /// Microjoules of a phase over all domains; `None` if none was measured.
    pub fn phase_uj(&self, phase: Phase) -> Option<u64> {
        let measured = self.measured_uj.values().filter_map(|phases| phases.get(&phase));
        measured.copied().reduce(u64::saturating_add)
    }

    /// Microjoules in all; `None` if nothing was measured.
    pub fn total_uj(&self) -> Option<u64> {
        self.measured_uj
            .keys()
            .filter_map(|&domain| self.domain_uj(domain))
            .reduce(u64::saturating_add)
    }

    /// The record of the report: kWh by domain and phase, sources, Wh per 1,000 images, CO2 where the grid is known.
    /// Power usage effectiveness is stated as given, never applied.
    pub fn report(&self, n_images: u64, pue: Option<f64>, carbon: Option<&Carbon>) -> Value {
        let kwh = |uj: Option<u64>| uj.map(|uj| float(uj) / UJ_PER_KWH);
        let source = |domain| self.sources.get(&domain);
        let phases: BTreeMap<Phase, f64> = self
            .measured_uj
            .values()
            .flat_map(BTreeMap::keys)
            .filter_map(|&phase| Some((phase, kwh(self.phase_uj(phase))?)))
            .collect();
        let total = self.total_uj();
        let per_1k = total
            .filter(|_| n_images > 0)
            .map(|uj| float(uj) / UJ_PER_WH / float(n_images) * 1000.0);
        let co2 = carbon.and_then(|carbon| {
            let grams = kwh(total)? * carbon.g_per_kwh;
            Some(json!({
                "value": grams, "g_per_kwh": carbon.g_per_kwh, "country": carbon.country, "year": carbon.year,
                "attribution": carbon.attribution,
            }))
        });
        json!({
            "gpu_kwh": kwh(self.domain_uj(Domain::Gpu)),
            "cpu_kwh": kwh(self.domain_uj(Domain::Cpu)),
            "source": {"gpu": source(Domain::Gpu), "cpu": source(Domain::Cpu)},
            "phases": phases,
            "attempts": self.attempts,
            "lost_intervals": self.lost_intervals,
            "wh_per_1k_images": per_1k,
            "pue": pue.map(|value| json!({"value": value, "applied": false})),
            "scope": "whole device, includes other processes",
            "co2_g": co2,
        })
    }

    fn add(&mut self, domain: Domain, phase: Phase, uj: u64) {
        *self.measured_uj.entry(domain).or_default().entry(phase).or_default() += uj;
    }
}

#[expect(clippy::cast_precision_loss, reason = "a report needs no more than 53 bits")]
fn float(value: u64) -> f64 {
    value as f64
}

/// Reads sources and adds what they counted to the totals of earlier attempts.
#[derive(Debug)]
pub struct EnergyLedger {
    meters: Vec<Meter>,
    totals: EnergyTotals,
    sampled_at_secs: f64,
}

#[derive(Debug)]
struct Meter {
    domain: Domain,
    source: Box<dyn EnergySource>,
    previous_uj: Option<u64>,
}

/// What opening the counters of a domain gave.
type Opened = (Domain, Result<Vec<Box<dyn EnergySource>>, Unavailable>);

impl EnergyLedger {
    /// Continues `totals` (of the checkpoint, or the default) with the sources of this process. `now_secs` is a clock
    /// that never goes back; nothing is added for the time before.
    pub fn begin(mut totals: EnergyTotals, opened: Vec<Opened>, now_secs: f64) -> Self {
        let mut meters = Vec::new();
        totals.attempts += 1;
        for (domain, sources) in opened {
            match sources {
                Ok(sources) => {
                    let labels: Vec<&str> = sources.iter().map(|source| source.label()).collect();
                    totals.sources.insert(domain, labels.join(" + "));
                    for mut source in sources {
                        // The first reading only says where the counter stands.
                        let previous_uj = source.read_uj().ok();
                        meters.push(Meter { domain, source, previous_uj });
                    }
                }
                Err(unavailable) => {
                    totals.sources.entry(domain).or_insert_with(|| unavailable.to_string());
                }
            }
        }
        Self { meters, totals, sampled_at_secs: now_secs }
    }

    /// Attributes everything counted since the last call to `phase`. Call it at least once a minute, and whenever a
    /// phase ends.
    pub fn sample(&mut self, phase: Phase, now_secs: f64) {
        let interval_secs = now_secs - self.sampled_at_secs;
        self.sampled_at_secs = now_secs;
        for meter in &mut self.meters {
            match meter.advance(interval_secs) {
                Some(uj) => self.totals.add(meter.domain, phase, uj),
                None => self.totals.lost_intervals += 1,
            }
        }
    }

    /// What was measured so far, earlier attempts included.
    pub const fn totals(&self) -> &EnergyTotals {
        &self.totals
    }
}

impl Meter {
    /// Microjoules since the last reading; `None` if the interval is lost.
    fn advance(&mut self, interval_secs: f64) -> Option<u64> {
        let now = self.source.read_uj().ok();
        let previous = std::mem::replace(&mut self.previous_uj, now)?;
        let now = now?;
        if let Some(difference) = now.checked_sub(previous) {
            return Some(difference);
        }
        let range = self.source.wrap_uj()?;
        let may_wrap = interval_secs < float(range) / (MAX_PACKAGE_WATTS * 1e6);
        may_wrap.then(|| range.checked_sub(previous))?.map(|rest| rest.saturating_add(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Answers with scripted readings, then with the last one.
    #[derive(Debug)]
    struct Scripted {
        readings: Vec<Option<u64>>,
        wrap: Option<u64>,
    }

    impl EnergySource for Scripted {
        fn read_uj(&mut self) -> Result<u64, Unavailable> {
            let reading =
                if self.readings.len() > 1 { self.readings.remove(0) } else { self.readings[0] };
            reading.ok_or_else(|| Unavailable { reason: "GpuLost".to_owned() })
        }

        fn wrap_uj(&self) -> Option<u64> {
            self.wrap
        }

        fn label(&self) -> &'static str {
            "scripted"
        }
    }

    fn source(readings: &[Option<u64>], wrap: Option<u64>) -> Vec<Opened> {
        let scripted: Box<dyn EnergySource> =
            Box::new(Scripted { readings: readings.to_vec(), wrap });
        vec![(Domain::Cpu, Ok(vec![scripted]))]
    }

    fn measured(readings: &[Option<u64>], wrap: Option<u64>, interval_secs: f64) -> EnergyTotals {
        let mut ledger = EnergyLedger::begin(EnergyTotals::default(), source(readings, wrap), 0.0);
        for idx in 1..readings.len() {
            ledger.sample(Phase::Train, interval_secs * float(idx as u64));
        }
        ledger.totals().clone()
    }

    #[test]
    fn a_counter_that_wraps_is_continued() {
        let totals = measured(&[Some(900_000_000), Some(100_000_000)], Some(1_000_000_000), 0.5);
        assert_eq!(totals.total_uj(), Some(200_000_000));
        assert_eq!(totals.lost_intervals, 0);
    }

    #[test]
    fn a_counter_that_may_have_wrapped_twice_or_cannot_wrap_is_a_reset() {
        for (wrap, interval_secs) in [(Some(1_000_000_000), 2.0), (None, 0.5)] {
            let totals = measured(
                &[Some(900_000_000), Some(100_000_000), Some(100_000_007)],
                wrap,
                interval_secs,
            );
            assert_eq!(totals.total_uj(), Some(7));
            assert_eq!(totals.lost_intervals, 1);
        }
    }

    #[test]
    fn the_first_reading_is_never_taken_as_energy() {
        assert_eq!(measured(&[Some(5_000_000), Some(5_000_001)], None, 1.0).total_uj(), Some(1));
    }

    #[test]
    fn a_source_that_fails_for_a_while_loses_two_intervals() {
        let totals = measured(&[Some(1), Some(4), None, Some(50), Some(60)], None, 1.0);
        assert_eq!(totals.total_uj(), Some(13));
        assert_eq!(totals.lost_intervals, 2);
    }

    #[test]
    fn a_source_that_cannot_be_read_is_null_with_its_reason() {
        let opened = vec![(Domain::Cpu, Err(Unavailable { reason: "EACCES".to_owned() }))];
        let mut ledger = EnergyLedger::begin(EnergyTotals::default(), opened, 0.0);
        ledger.sample(Phase::Train, 60.0);
        let report = ledger.totals().report(100, None, None);
        assert!(
            report["cpu_kwh"].is_null()
                && report["gpu_kwh"].is_null()
                && report["wh_per_1k_images"].is_null()
        );
        assert_eq!(report["source"]["cpu"], "unavailable: EACCES");
        assert_eq!(report["phases"], json!({}));
        assert_eq!(measured(&[None, None, None], None, 1.0).total_uj(), None);
    }

    #[test]
    fn the_report_states_units_and_co2_only_where_the_grid_is_known() {
        let totals = measured(&[Some(0), Some(3_600_000_000_000)], None, 1.0);
        let carbon = Carbon {
            g_per_kwh: 56.0,
            country: Some("FRA".to_owned()),
            year: Some(2024),
            attribution: "Ember, CC BY 4.0".to_owned(),
        };
        let report = totals.report(2000, Some(1.2), Some(&carbon));
        assert_eq!(report["cpu_kwh"], 1.0);
        assert_eq!(report["phases"]["train"], 1.0);
        assert_eq!(report["wh_per_1k_images"], 500.0);
        assert_eq!(report["co2_g"]["value"], 56.0);
        assert_eq!(report["pue"], json!({"value": 1.2, "applied": false}));
        assert!(totals.report(1, None, None)["co2_g"].is_null());
    }

    proptest! {
        #[test]
        fn splitting_a_run_into_attempts_changes_nothing(
            steps in prop::collection::vec(0_u64..1_000_000, 1..30), cut in 0_usize..30,
        ) {
            let readings: Vec<Option<u64>> = std::iter::once(5).chain(steps.iter().copied()).scan(0, |sum, step| { *sum += step; Some(Some(*sum)) }).collect();
            let whole = measured(&readings, None, 1.0);
            let cut = cut.min(readings.len() - 1);
            let first = measured(&readings[..=cut], None, 1.0);
            // Through JSON, as a checkpoint keeps it.
            let kept: EnergyTotals = serde_json::from_str(&serde_json::to_string(&first).unwrap()).unwrap();
            let mut second = EnergyLedger::begin(kept, source(&readings[cut..], None), 0.0);
            for _ in cut + 1..readings.len() {
                second.sample(Phase::Train, 1.0);
            }
            let total = |totals: &EnergyTotals| totals.total_uj().unwrap_or_default();
            prop_assert_eq!(total(second.totals()), total(&whole));
            prop_assert_eq!(second.totals().attempts, 2);
            prop_assert_eq!(second.totals().phase_uj(Phase::Train), second.totals().total_uj());
        }
    }
}

//! Panel 12: what the reader should know before believing any of it.

use super::Panel;
use crate::Energy;
use crate::html::fault;
use crate::page::{Page, told};
use crate::words::Words;
use eval::record::{FacetRecord, Verdict};
use maud::{Markup, html};

/// What could fool a census whatever it counted; each is a key `limits.fool_…`.
const FOOLED_BY: [&str; 9] = [
    "style",
    "thesaurus",
    "lettering",
    "labels",
    "detector",
    "guidance",
    "identifier",
    "map",
    "noise",
];

/// Counts, floors, what was not decided and what was refused, time and energy, provenance.
pub(crate) fn panel(page: &Page<'_>) -> Panel {
    let words = page.words;
    let body = html! {
        div class="columns" {
            (list(words, "limits.spent", &plain(spent(page))))
            (list(words, "limits.counted", &plain(counted(page))))
            (list(words, "limits.floors", &plain(floors(page))))
            (list(words, "limits.undecided", &plain(undecided(page))))
            (list(words, "limits.fool", &could_fool(page)))
            (list(words, "limits.refused", &refused(page)))
        }
        (provenance(page))
    };
    Panel {
        id: "limits",
        title: words.say("limits.title").to_owned(),
        data: Some("confusion.csv"),
        body,
    }
}

/// A heading with its items, or the word that there are none.
fn list(words: &Words, title: &str, items: &[Markup]) -> Markup {
    html! {
        div class="list" {
            h3 { (words.say(title)) }
            @if items.is_empty() { p { (words.say("limits.none")) } }
            @else { ul { @for item in items { li { (item) } } } }
        }
    }
}

fn plain(items: Vec<String>) -> Vec<Markup> {
    items.into_iter().map(|item| html! { (item) }).collect()
}

/// How much was counted, and what the controls gave.
fn counted(page: &Page<'_>) -> Vec<String> {
    let (counts, words) = (page.census.counts, page.words);
    let prompts = words.thousands(counts.headline_prompts);
    let placebos = page.census.nulls.placebos.to_string();
    vec![
        words.fill(
            "limits.pairs",
            &[("pairs", &words.thousands(counts.headline_pairs)), ("prompts", &prompts)],
        ),
        words.fill(
            "limits.pictures",
            &[
                ("pictures", &words.thousands(counts.rows)),
                ("withheld", &words.thousands(counts.blocked)),
            ],
        ),
        words.fill(
            "limits.draws",
            &[
                ("bootstrap", &words.thousands(u64::from(counts.bootstrap))),
                ("flips", &words.thousands(u64::from(counts.flips))),
            ],
        ),
        zero(page),
        rerun(page),
        words.fill("limits.placebos", &[("n", &placebos)]),
    ]
}

/// The zero adapter.
fn zero(page: &Page<'_>) -> String {
    let words = page.words;
    let Some(zero) = page.census.nulls.zero else {
        return words.say("limits.no_zero").to_owned();
    };
    let told = words.fill(
        "limits.zero",
        &[
            ("changed", &words.thousands(zero.different_pixels)),
            ("pairs", &words.thousands(zero.pairs)),
        ],
    );
    if fault(page).is_some() { format!("{told}{}", words.say("limits.a_fault")) } else { told }
}

/// The base against itself.
fn rerun(page: &Page<'_>) -> String {
    let words = page.words;
    match page.info.rerun {
        Some(rerun) => words.fill(
            "limits.rerun",
            &[
                ("changed", &words.thousands(rerun.different_labels)),
                ("pairs", &words.thousands(rerun.pairs)),
            ],
        ),
        None => words.say("limits.no_rerun").to_owned(),
    }
}

/// Floors, condition numbers and the second evaluator, facet by facet.
fn floors(page: &Page<'_>) -> Vec<String> {
    let words = page.words;
    let floor = |facet: &FacetRecord| {
        words.fill(
            "limits.floor",
            &[
                ("facet", &page.facet(&facet.id)),
                ("tv", &words.number(100.0 * facet.tv.value, 1)),
                ("floor", &words.number(100.0 * facet.tv_floor, 1)),
            ],
        )
    };
    let mut items: Vec<String> = page.census.facets.iter().map(floor).collect();
    items.extend(page.census.facets.iter().filter_map(|facet| condition(page, facet)));
    match &page.census.agreement {
        Some(agreement) => items.extend(agreement.facets.iter().map(|facet| {
            words.fill(
                "limits.kappa",
                &[
                    ("facet", &page.facet(&facet.facet)),
                    ("kappa", &words.number(facet.kappa, 2)),
                    ("evaluator", &agreement.evaluator),
                    ("sign", &words.percent(facet.same_sign, 0)),
                    ("pictures", &words.thousands(facet.pictures)),
                ],
            )
        })),
        None => items.push(words.say("limits.no_kappa").to_owned()),
    }
    items
}

/// The condition of a facet's confusion matrix, and how far the base lies from its published prior.
fn condition(page: &Page<'_>, facet: &FacetRecord) -> Option<String> {
    let words = page.words;
    let calibration = facet.calibration.as_ref()?;
    let prior = calibration.tv_to_prior.as_ref().map_or_else(String::new, |tv| {
        words.fill("limits.prior", &[("tv", &words.estimate(tv, 100.0, 1))])
    });
    Some(words.fill(
        "limits.condition",
        &[
            ("facet", &page.facet(&facet.id)),
            ("condition", &words.number(calibration.condition, 2)),
            ("prior", &prior),
        ],
    ))
}

/// Entities of which nothing can be said, by facet.
fn undecided(page: &Page<'_>) -> Vec<String> {
    let of_facet = |facet: &FacetRecord| {
        let undecided = facet.entities.iter().filter(|e| e.verdict == Verdict::Undecided);
        let names: Vec<String> = undecided.map(|entity| page.label(entity)).collect();
        let values = [("facet", &*page.facet(&facet.id)), ("names", &*names.join(", "))];
        (!names.is_empty()).then(|| page.words.fill("limits.undecided_of", &values))
    };
    page.census.facets.iter().filter_map(of_facet).collect()
}

/// Refusals of one reason in one line.
fn refused(page: &Page<'_>) -> Vec<Markup> {
    let words = page.words;
    let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
    for refusal in &page.census.refused {
        let what = words.tell(&refusal.what);
        match reasons.iter_mut().find(|(reason, _)| *reason == refusal.reason) {
            Some((_, all)) => all.push(what),
            None => reasons.push((&refusal.reason, vec![what])),
        }
    }
    let line = |(reason, all): &(&str, Vec<String>)| {
        let whats = words.fill("limits.refusal", &[("what", &all.join(", "))]);
        html! { (whats) " " (told(words, reason)) }
    };
    reasons.iter().map(line).collect()
}

/// What this census warns of, then what could fool any.
fn could_fool(page: &Page<'_>) -> Vec<Markup> {
    let words = page.words;
    let warnings = page.census.warnings.iter().map(|warning| told(words, warning));
    let one_evaluator = page.census.agreement.is_none().then_some("limits.fool_one_evaluator");
    let standing = FOOLED_BY.map(|what| format!("limits.fool_{what}"));
    let keys = one_evaluator.map(str::to_owned).into_iter().chain(standing);
    warnings.chain(keys.map(|key| html! { (words.say(&key)) })).collect()
}

/// Energy first, then the time of every phase.
fn spent(page: &Page<'_>) -> Vec<String> {
    let (info, words) = (page.info, page.words);
    let total: f64 = info.seconds.iter().map(|(_, seconds)| seconds).sum();
    // A census that ran alone is not in the records: shares of a total without it would mislead.
    let whole = info.seconds.iter().any(|(phase, _)| phase == "census");
    let covered = if whole { "" } else { words.say("limits.without_census") };
    let mut items = vec![match &info.energy {
        Energy::Measured { watt_hours, scope } => words.fill(
            "limits.energy",
            &[
                ("wh", &words.number(*watt_hours, 1)),
                ("scope", &words.tell(scope)),
                ("covered", covered),
            ],
        ),
        Energy::NotMeasured(reason) => {
            words.fill("limits.no_energy", &[("reason", &words.tell(reason))])
        }
    }];
    items.extend(info.seconds.iter().map(|(phase, seconds)| {
        let name = words.known(&format!("phase.{phase}"), phase);
        let time = words.duration(*seconds);
        if whole && info.seconds.len() > 1 && total > 0.0 {
            let share = words.percent(seconds / total, 0);
            words.fill("limits.phase_share", &[("phase", name), ("time", &time), ("share", &share)])
        } else {
            words.fill("limits.phase", &[("phase", name), ("time", &time)])
        }
    }));
    if !whole {
        items.push(words.say("limits.census_not_timed").to_owned());
    }
    items
}

/// Of what and with what the census was taken.
fn provenance(page: &Page<'_>) -> Markup {
    let (census, info, words) = (page.census, page.info, page.words);
    html! {
        dl class="facts" {
            @for (term, value) in &info.facts {
                div { dt { (words.known(&format!("fact.{}", term.to_lowercase()), term)) } dd { (value) } }
            }
            div { dt { (words.say("fact.budget")) } dd { (census.budget) } }
            div { dt { (words.say("fact.tool")) } dd { (census.tool) } }
        }
        dl class="hashes" {
            @for (term, value) in &info.hashes {
                div { dt { (words.known(&format!("hash.{term}"), term)) } dd { code { (value) } } }
            }
            @if let Some(hash) = &census.manifest_sha256 {
                div { dt { (words.say("hash.census")) } dd { code { (hash) } } }
            }
        }
        details {
            summary { span { (words.say("limits.recipe")) } }
            pre tabindex="0" { code { (info.recipe_yaml) } }
        }
    }
}

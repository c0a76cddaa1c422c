//! The section `series`: which pictures each series has.

use std::collections::{BTreeMap, BTreeSet};

use serde_saphyr::{Location, Spanned};

use super::combination::{self, MAX_COMBINATIONS};
use super::entries::{Entries, Seeds};
use super::template::Template;
use super::vocabulary::{Named, Vocabulary, advice, values};
use super::{Order, Picture, Series};
use crate::choice::Choice;
use crate::field::{Field, Whole, WordOrList, raw_section};
use crate::problem::{Checks, check_range, plain_items};
use crate::units::file_name;

raw_section! {
    /// One series.
    RawSeries {
        /// Name of the template that gives its instructions (default: the only one).
        template: String,
        /// Values that slots have in this series, of those that the file names: one, or a list
        /// (default: all).
        slots: Entries<WordOrList>,
        /// How many pictures it has (default: one for each combination of values).
        #[schemars(range(min = 1, max = 999))]
        pictures: Whole,
        /// How the combinations follow each other: `in_turn` (default) or drawn.
        order: Choice<Order>,
        /// Its seeds, one picture after the other and again from the first: a list, or how many are
        /// drawn for it (default: one for each picture).
        seeds: Seeds,
    }
}

/// Most pictures of one series: their files have three digits.
const MAX_PICTURES: u64 = 999;
/// Most series: each has a row of its own on a printed sheet.
const MAX_SERIES: usize = 32;
/// Most pictures of all series together; each is compared with each.
const MAX_TOTAL: usize = 2048;

/// What a series takes from the rest of the file.
#[derive(Debug, Clone, Copy)]
struct Context<'a> {
    name: &'a str,
    seed: u64,
    vocabulary: &'a Vocabulary,
}

impl Context<'_> {
    /// Path of a key of the series.
    fn key(&self, name: &str) -> String {
        format!("series.{}.{name}", self.name)
    }
}

/// Resolves the section of the file at `root`.
pub(super) fn resolve(
    raw: Field<Entries<RawSeries>>,
    vocabulary: &Vocabulary,
    seed: u64,
    root: Location,
    checks: &mut Checks,
) -> Option<Vec<Series>> {
    let Spanned { value: Entries(entries), referenced, .. } =
        raw.required("series", root, checks)?;
    check_folders(&entries, checks);
    let n_series = entries.len();
    if n_series == 0 || n_series > MAX_SERIES {
        let rule = if n_series == 0 {
            "at least one series, found none".to_owned()
        } else {
            format!("at most {MAX_SERIES} series, found {n_series}")
        };
        checks.problem(referenced, format!("`series` must hold {rule}"));
        return None;
    }
    let mut used = BTreeSet::new();
    let mut all = Vec::with_capacity(n_series);
    for (name, raw) in entries {
        let Some(raw) = raw.given(&format!("series.{}", name.value), checks) else { continue };
        let name = file_name(name, "series", checks);
        let context = Context { name: &name, seed, vocabulary };
        all.extend(raw.value.resolve(context, raw.referenced, &mut used, checks));
    }
    // A series that is broken may have meant any template.
    if all.len() == n_series {
        vocabulary.check_templates(&used, checks);
    }
    let n_pictures: usize = all.iter().map(|series| series.pictures.len()).sum();
    if n_pictures > MAX_TOTAL {
        let rule = format!("at most {MAX_TOTAL} pictures in all, found {n_pictures}");
        checks.problem(referenced, format!("`series` must have {rule}"));
    }
    Some(all)
}

/// Records names that cannot be folders beside the files of the result, or not beside each other.
fn check_folders(entries: &[(Spanned<String>, Field<RawSeries>)], checks: &mut Checks) {
    let mut folders: BTreeMap<String, &str> = BTreeMap::new();
    for (name, _) in entries {
        let shown = name.value.escape_debug();
        if name.value.contains('.') {
            let message = format!("the name of a series must hold no `.`, found `{shown}`");
            checks.problem(name.referenced, message);
        }
        if let Some(other) = folders.insert(name.value.to_lowercase(), &name.value) {
            let message = format!("series `{other}` and `{shown}` would share a folder");
            let hint = "some file systems do not tell capitals from small letters";
            checks.problem_with_hint(name.referenced, message, hint);
        }
    }
}

impl RawSeries {
    /// Resolves the section at `section`; the name of its template goes into `used`.
    fn resolve(
        self,
        context: Context<'_>,
        section: Location,
        used: &mut BTreeSet<String>,
        checks: &mut Checks,
    ) -> Option<Series> {
        let order = self.order.choice_or(Order::InTurn, &context.key("order"), checks);
        let template = chosen_template(self.template, context, section, checks)?;
        used.insert(template.name.clone());
        // A broken template has been reported where it stands.
        let words = template.value.as_ref()?;
        let lists = lists(self.slots, words, context, checks)?;
        let lengths: Vec<usize> = lists.iter().map(|(_, list)| list.len()).collect();
        let Some(n_combinations) = combination::count(&lengths) else {
            let rule = format!("at most {MAX_COMBINATIONS} combinations of values");
            checks.problem(section, format!("series `{}` must have {rule}", context.name));
            return None;
        };
        let n_pictures = n_pictures(self.pictures, n_combinations, context, section, checks);
        let seeds = seeds(self.seeds, n_pictures, context, checks);
        let stream = (context.seed, context.name);
        let numbers = combination::numbers(order, n_pictures, n_combinations, stream);
        let picture = |(number, seed): (usize, u64)| {
            let positions = combination::positions(number, &lengths);
            let slots: BTreeMap<String, String> = lists
                .iter()
                .zip(positions)
                .map(|((slot, list), position)| (slot.clone(), list[position].clone()))
                .collect();
            Picture { instruction: words.filled(&slots), slots, seed }
        };
        let seeds = seeds.into_iter().cycle();
        let pictures: Vec<Picture> = numbers.into_iter().zip(seeds).map(picture).collect();
        check_repeats(&pictures, context, section, checks);
        Some(Series { name: context.name.to_owned(), pictures })
    }
}

/// The template that a series names, or the only one.
fn chosen_template<'a>(
    raw: Field<String>,
    context: Context<'a>,
    section: Location,
    checks: &mut Checks,
) -> Option<&'a Named<Template>> {
    let vocabulary = context.vocabulary;
    let key = context.key("template");
    if raw.is_absent() {
        let only = vocabulary.only_template();
        let known = vocabulary.template_names();
        // Without any template there is a problem already.
        if only.is_none() && !known.is_empty() {
            let message = format!("`{key}` is missing, and there are {} templates", known.len());
            checks.problem_with_hint(section, message, advice("", &known));
        }
        return only;
    }
    let name = raw.given(&key, checks)?;
    let found = vocabulary.template(&name.value);
    if found.is_none() {
        checks.problem_with_hint(
            name.referenced,
            format!("`{key}` must name a template, found `{}`", name.value.escape_debug()),
            advice(&name.value, &vocabulary.template_names()),
        );
    }
    found
}

/// The values of each slot of a template, in its order: those of the series, else all of the file.
fn lists(
    raw: Field<Entries<WordOrList>>,
    template: &Template,
    context: Context<'_>,
    checks: &mut Checks,
) -> Option<Vec<(String, Vec<String>)>> {
    let own = raw.given(&context.key("slots"), checks);
    let own = own.map_or_else(Vec::new, |own| own.value.0);
    let mut narrowed: BTreeMap<String, Option<Vec<String>>> = BTreeMap::new();
    for (slot, words) in own {
        let key = context.key(&format!("slots.{}", slot.value));
        if !template.slots().contains(&slot.value.as_str()) {
            checks.problem_with_hint(
                slot.referenced,
                format!("`{key}` is no slot of the template"),
                advice(&slot.value, &template.slots()),
            );
            continue;
        }
        let words = words.given(&key, checks).and_then(|words| values(words, &key, checks));
        let words = words.and_then(|words| subset(words, &slot.value, context, checks));
        narrowed.insert(slot.value, words);
    }
    let list = |slot: &str| match narrowed.get(slot) {
        Some(own) => own.clone(),
        None => context.vocabulary.values(slot).map(<[String]>::to_vec),
    };
    template.slots().into_iter().map(|slot| Some((slot.to_owned(), list(slot)?))).collect()
}

/// Values of a slot that the file names; others are recorded.
fn subset(
    words: Vec<Spanned<String>>,
    slot: &str,
    context: Context<'_>,
    checks: &mut Checks,
) -> Option<Vec<String>> {
    // A slot without values has been reported.
    let known: Vec<&str> = context.vocabulary.values(slot)?.iter().map(String::as_str).collect();
    let mut is_known = true;
    for word in words.iter().filter(|word| !known.contains(&word.value.as_str())) {
        checks.problem_with_hint(
            word.referenced,
            format!("`slots.{slot}` has no value `{}`", word.value.escape_debug()),
            advice(&word.value, &known),
        );
        is_known = false;
    }
    is_known.then(|| words.into_iter().map(|word| word.value).collect())
}

/// How many pictures a series has; one for each combination if it does not say it.
fn n_pictures(
    raw: Field<Whole>,
    n_combinations: usize,
    context: Context<'_>,
    section: Location,
    checks: &mut Checks,
) -> usize {
    let key = context.key("pictures");
    let is_said = !raw.is_absent();
    let said = raw.number(&key, &(1..=MAX_PICTURES), checks);
    let n_combinations = n_combinations as u64;
    if !is_said && n_combinations > MAX_PICTURES {
        let found = format!("there are {n_combinations} combinations");
        let rule = format!("at most {MAX_PICTURES} pictures");
        checks.problem(section, format!("`{key}` is missing: {found}, expected {rule}"));
    }
    // A number outside its range is recorded already, so what stands in for it is never seen.
    said.unwrap_or(n_combinations).clamp(1, MAX_PICTURES) as usize
}

/// The seeds that the pictures of a series take one after the other; at least one.
fn seeds(
    raw: Field<Seeds>,
    n_pictures: usize,
    context: Context<'_>,
    checks: &mut Checks,
) -> Vec<u64> {
    let Context { name, seed, .. } = context;
    let drawn = |n: usize| -> Vec<u64> {
        (0..n).map(|place| combination::seed(seed, name, place)).collect()
    };
    let key = context.key("seeds");
    let Some(raw) = raw.given(&key, checks) else { return drawn(n_pictures) };
    let rule = 1..=n_pictures as u64;
    match raw.value {
        Seeds::Count(count) => {
            check_range(count, &key, &rule, raw.referenced, checks);
            drawn((count as usize).clamp(1, n_pictures))
        }
        Seeds::List(list) => {
            if !rule.contains(&(list.len() as u64)) {
                let found = list.len();
                let rule = format!("at least 1 and at most {n_pictures}, one for each picture");
                checks.problem(raw.referenced, format!("`{key}` must be {rule}, found {found}"));
                return drawn(1);
            }
            let list = plain_items(list, &key, checks);
            list.into_iter().map(|seed| seed.value).collect()
        }
    }
}

/// Records the first picture that would be drawn twice.
fn check_repeats(
    pictures: &[Picture],
    context: Context<'_>,
    section: Location,
    checks: &mut Checks,
) {
    let mut seen: BTreeMap<(&str, u64), usize> = BTreeMap::new();
    for (index, picture) in pictures.iter().enumerate() {
        let Some(first) = seen.insert((picture.instruction.as_str(), picture.seed), index) else {
            continue;
        };
        checks.problem_with_hint(
            section,
            format!(
                "picture {} of series `{}` would be picture {} again: `{}` with seed {}",
                index + 1,
                context.name,
                first + 1,
                picture.instruction.escape_debug(),
                picture.seed
            ),
            "without `seeds` every picture has a seed of its own",
        );
        return;
    }
}

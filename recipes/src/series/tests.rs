use proptest::prelude::*;

use super::*;
use crate::weights::WeightsSource;

/// A series file with as little as one can have: two slots, one series of all six combinations.
const SMALL: &str = "\
schema: populate/series/1
name: week
base: postcards
templates:
  card: \"a {thing} {time}\"
slots:
  thing: [boat, tower, fish]
  time: [by day, at night]
series:
  harbor: { pictures: 6 }
";

fn file(text: &str) -> SeriesFile {
    parse(text, "t.yaml").unwrap_or_else(|error| panic!("{error}: {:#?}\n{text}", error.problems))
}

fn problems(text: &str) -> Vec<Problem> {
    match parse(text, "t.yaml") {
        Ok(file) => panic!("expected problems, found {file:?}\n{text}"),
        Err(error) => error.problems,
    }
}

/// The only problem of a text.
fn one(text: &str) -> Problem {
    let mut found = problems(text);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// The problems of [`SMALL`] with one part replaced, each as `what it points at: message`.
fn problems_with(old: &str, new: &str) -> Vec<String> {
    assert!(SMALL.contains(old), "{old}");
    let text = SMALL.replace(old, new);
    let shown = |problem: Problem| format!("{}: {}", &text[problem.span.clone()], problem.message);
    problems(&text).into_iter().map(shown).collect()
}

/// The first problem's advice.
fn hint_with(old: &str, new: &str) -> String {
    problems(&SMALL.replace(old, new))[0].hint.clone().unwrap()
}

/// The only series of [`SMALL`] with these settings.
fn harbor(settings: &str) -> Series {
    file(&SMALL.replace("{ pictures: 6 }", settings)).series.remove(0)
}

fn instructions(series: &Series) -> Vec<&str> {
    series.pictures.iter().map(|picture| picture.instruction.as_str()).collect()
}

fn seeds(series: &Series) -> Vec<u64> {
    series.pictures.iter().map(|picture| picture.seed).collect()
}

#[test]
fn slots_take_all_combinations_of_their_values_in_turn() {
    let series = harbor("{}");
    assert_eq!(
        instructions(&series),
        [
            "a boat by day",
            "a tower at night",
            "a fish by day",
            "a boat at night",
            "a tower by day",
            "a fish at night",
        ]
    );
    let slots = &series.pictures[1].slots;
    assert_eq!((slots["thing"].as_str(), slots["time"].as_str()), ("tower", "at night"));
    assert_eq!(series, harbor("{ pictures: 6, template: card, order: in_turn }"));
}

#[test]
fn what_is_not_said_comes_from_the_base() {
    let small = file(SMALL);
    assert_eq!((small.name.as_str(), small.seed, small.side_px), ("week", 0, 64));
    assert!((small.guidance_scale - 3.0).abs() < 1e-12 && small.guidance_rescale.abs() < 1e-12);
    assert_eq!(small.sampler, SAMPLER);
    assert!(small.adapters.is_empty() && small.negative.is_empty());
    assert_eq!((small.evaluator, small.references), (None, None));
    let large = file(&SMALL.replace("postcards", "{ sd1: { weights: hf:a/b } }"));
    assert_eq!((large.side_px, large.guidance_scale.to_bits()), (512, 7.5_f64.to_bits()));
    let model = large.base.model().unwrap();
    assert!(matches!(model.weights, WeightsSource::Hub(_)));
}

#[test]
fn what_is_said_is_taken() {
    let said = file(&format!(
        "{SMALL}adapters: [{{ file: a.safetensors, dose: 0.5 }}, {{ file: b.safetensors }}]\n\
         sampler: {{ euler: {{ steps: 9 }} }}\nguidance_scale: 2.0\nnegative: a person\n\
         side_px: 128\nseed: 5\nreferences: r\nevaluator: e\n"
    ));
    let adapters: Vec<(&Path, u64)> = said
        .adapters
        .iter()
        .map(|adapter| (adapter.file.as_path(), adapter.dose.to_bits()))
        .collect();
    let expected = [("a.safetensors", 0.5_f64), ("b.safetensors", 1.0)];
    assert_eq!(adapters, expected.map(|(name, dose)| (Path::new(name), dose.to_bits())));
    assert_eq!((said.sampler.kind, said.sampler.steps), (SamplerKind::Euler, 9));
    assert_eq!((said.negative.as_str(), said.side_px, said.seed), ("a person", 128, 5));
    assert_eq!(said.references.as_deref(), Some(Path::new("r")));
    assert_eq!(said.evaluator.as_deref(), Some(Path::new("e")));
}

#[test]
fn a_series_may_fix_a_slot_or_take_some_of_its_values() {
    let fixed = harbor("{ slots: { time: at night } }");
    assert_eq!(instructions(&fixed), ["a boat at night", "a tower at night", "a fish at night"]);
    let some = harbor("{ slots: { thing: [fish, boat] } }");
    let expected = ["a fish by day", "a boat at night", "a fish at night", "a boat by day"];
    assert_eq!(instructions(&some), expected);
    assert_eq!(
        problems_with("{ pictures: 6 }", "{ slots: { time: at nights } }"),
        ["at nights: `slots.time` has no value `at nights`"]
    );
    let hint = hint_with("{ pictures: 6 }", "{ slots: { time: at nights } }");
    assert_eq!(hint, "did you mean `at night`?");
    assert_eq!(
        problems_with("{ pictures: 6 }", "{ slots: { place: [here] } }"),
        ["place: `series.harbor.slots.place` is no slot of the template"]
    );
}

#[test]
fn every_picture_has_a_seed_of_its_own_unless_told() {
    let own = seeds(&harbor("{}"));
    let distinct: std::collections::BTreeSet<u64> = own.iter().copied().collect();
    assert_eq!(distinct.len(), 6);
    let two = seeds(&harbor("{ seeds: 2 }"));
    assert_eq!(two, [own[0], own[1], own[0], own[1], own[0], own[1]]);
    assert_eq!(seeds(&harbor("{ seeds: [7, 3, 7] }")), [7, 3, 7, 7, 3, 7]);
    assert_ne!(seeds(&file(&format!("{SMALL}seed: 1\n")).series[0]), own);
}

#[test]
fn a_series_that_comes_moves_no_other_picture() {
    let alone = file(SMALL).series.remove(0);
    let drawn = "  winter: { order: drawn, pictures: 4 }\n";
    let behind = file(&format!("{SMALL}{drawn}"));
    assert_eq!(behind.series[0], alone);
    let before = file(&SMALL.replace("  harbor", &format!("{drawn}  harbor")));
    assert_eq!(before.series[1], alone);
    assert_eq!(before.series[0], behind.series[1]);
    let names: Vec<&str> = before.series.iter().map(|series| series.name.as_str()).collect();
    assert_eq!(names, ["winter", "harbor"], "the order is that of the text");
}

#[test]
fn drawn_orders_follow_from_the_file_and_begin_alike() {
    let drawn = |settings: &str| harbor(&format!("{{ order: drawn, {settings} }}"));
    let six = drawn("pictures: 6");
    assert_eq!(six, drawn("pictures: 6"));
    assert_eq!(six.pictures[..4], drawn("pictures: 4").pictures);
    let distinct: std::collections::BTreeSet<&str> = instructions(&six).into_iter().collect();
    assert_eq!(distinct.len(), 6, "all come before any comes again");
    // Of 720 orders each; that none of four seeds has that of another is no chance.
    let orders = (0..4).map(|seed| {
        let text = SMALL.replace("{ pictures: 6 }", "{ order: drawn }");
        let series = file(&format!("{text}seed: {seed}\n")).series.remove(0);
        instructions(&series).join(";")
    });
    let distinct: std::collections::BTreeSet<String> = orders.collect();
    assert!(distinct.len() >= 3, "{distinct:?}");
}

#[test]
fn no_picture_is_drawn_twice() {
    assert_eq!(harbor("{ pictures: 12 }").pictures.len(), 12, "other seeds are other pictures");
    let problems = problems_with("{ pictures: 6 }", "{ pictures: 12, seeds: [4] }");
    let again =
        "picture 7 of series `harbor` would be picture 1 again: `a boat by day` with seed 4";
    assert_eq!(problems.len(), 1);
    assert!(problems[0].ends_with(again), "{problems:?}");
    let all = harbor("{ slots: { thing: boat }, pictures: 4, seeds: [0, 0, 1, 1] }");
    let expected = ["a boat by day", "a boat at night", "a boat by day", "a boat at night"];
    assert_eq!(instructions(&all), expected);
}

#[test]
fn an_unknown_slot_is_shown_in_its_template() {
    assert_eq!(
        problems_with("a {thing} {time}", "a {thnig} {time}"), // typos: ignore
        [
            "\"a {thnig} {time}\": `templates.card` has the unknown slot `thnig`", // typos: ignore
            "thing: no template has the slot `thing`",
        ]
    );
    let hint = hint_with("a {thing} {time}", "a {thnig} {time}"); // typos: ignore
    assert_eq!(hint, "did you mean `thing`?");
}

#[test]
fn a_slot_or_template_that_nobody_uses_is_a_mistake() {
    assert_eq!(
        problems_with("  time: [", "  place: [here]\n  time: ["),
        ["place: no template has the slot `place`"]
    );
    assert_eq!(
        problems_with("templates:", "templates:\n  plain: a postcard"),
        ["{: `series.harbor.template` is missing, and there are 2 templates"]
    );
    let two = SMALL.replace("templates:", "templates:\n  plain: a postcard");
    let text = two.replace("{ pictures: 6 }", "{ template: card }");
    let problem = one(&text);
    assert_eq!(problem.message, "no series has the template `plain`");
    assert_eq!((problem.line, problem.column), (5, 3));
}

#[test]
fn an_unknown_template_is_shown_with_a_suggestion() {
    assert_eq!(
        problems_with("{ pictures: 6 }", "{ template: cards }"),
        ["cards: `series.harbor.template` must name a template, found `cards`"]
    );
    assert_eq!(hint_with("{ pictures: 6 }", "{ template: cards }"), "did you mean `card`?");
}

#[test]
fn a_broken_template_is_one_problem() {
    for (template, reason) in [
        ("a {thing {time}", "a slot is named by letters, digits, `-` and `_`, found `thing {time`"),
        ("a {thing} {time", "expected `}` behind the name of a slot, found none"),
        ("a thing} {time}", "found `}` without the `{` of a slot"),
    ] {
        let expected = [format!("\"{template}\": `templates.card`: {reason}")];
        assert_eq!(problems_with("a {thing} {time}", template), expected);
    }
}

#[test]
fn a_series_that_is_given_twice_is_refused() {
    let text = format!("{SMALL}  harbor: {{ pictures: 3 }}\n");
    let problem = one(&text);
    assert_eq!(problem.message, "key `harbor` is given twice");
    assert_eq!((problem.line, problem.column), (11, 3));
}

#[test]
fn series_have_folders_of_their_own() {
    let text = format!("{SMALL}  Harbor: {{ pictures: 3 }}\n");
    let problem = one(&text);
    assert_eq!(problem.message, "series `harbor` and `Harbor` would share a folder");
    let problems = problems_with("harbor:", "series.json:");
    assert_eq!(
        problems,
        ["series.json: the name of a series must hold no `.`, found `series.json`"]
    );
    assert!(problems_with("harbor:", "a/b:")[0].contains("must be 1 to 64 letters"));
}

#[test]
fn empty_lists_are_refused() {
    for (old, new, message) in [
        ("[by day, at night]", "[]", "`slots.time` must hold at least one value, found none"),
        ("  harbor: { pictures: 6 }", "  {}", "`series` must hold at least one series, found none"),
        (
            "{ pictures: 6 }",
            "{ slots: { time: [] } }",
            "`series.harbor.slots.time` must hold at least one value, found none",
        ),
        (
            "{ pictures: 6 }",
            "{ seeds: [] }",
            "`series.harbor.seeds` must be at least 1 and at most 6, one for each picture, found 0",
        ),
    ] {
        let problems = problems_with(old, new);
        assert!(problems[0].ends_with(message), "{problems:?}");
    }
    // Without a series no template is used; that says nothing new.
    let text = SMALL.replace("  card: \"a {thing} {time}\"", "  {}");
    let message = "`templates` must hold at least one template, found none";
    assert_eq!(problems(&text)[0].message, message);
}

#[test]
fn values_are_texts_that_differ_and_have_no_slots() {
    let with = |list: &str| problems_with("[by day, at night]", list);
    assert_eq!(with("[by day, by day]"), ["by day: `slots.time` holds `by day` twice"]);
    let nested = "'{thing}': `slots.time` holds values, not templates, found `{thing}`";
    assert_eq!(with("[by day, '{thing}']"), [nested]);
    let number = "1920: `slots.time` must be a text or a list of texts, found `1920`";
    assert_eq!(with("1920"), [number]);
    assert_eq!(with("[by day, ~]"), ["~: `slots.time` has no value"]);
    let years = SMALL.replace("[by day, at night]", "[1920, '1930']");
    let series = file(&years).series.remove(0);
    assert_eq!(instructions(&series)[..2], ["a boat 1920", "a tower 1930"]);
}

#[test]
fn numbers_have_ranges() {
    assert_eq!(
        problems_with("{ pictures: 6 }", "{ pictures: 1000 }"),
        ["1000: `series.harbor.pictures` must be at least 1 and at most 999, found `1000`"]
    );
    assert_eq!(
        problems_with("{ pictures: 6 }", "{ pictures: 6, seeds: 7 }"),
        ["7: `series.harbor.seeds` must be at least 1 and at most 6, found `7`"]
    );
    assert_eq!(problems(&SMALL.replace("{ pictures: 6 }", "{ seeds: -1 }")).len(), 1);
    assert_eq!(problems(&SMALL.replace("{ pictures: 6 }", "{ seeds: many }")).len(), 1);
    let dosed = format!("{SMALL}adapters: [{{ file: a, dose: 5 }}]\n");
    let message = "`adapters.dose` must be at least -4 and at most 4, found `5`";
    assert_eq!(problems(&dosed)[0].message, message);
}

#[test]
fn series_are_not_larger_than_can_be_compared() {
    let list = |n: usize| (0..n).map(|i| format!("v{i}")).collect::<Vec<_>>().join(", ");
    let many = SMALL.replace("[boat, tower, fish]", &format!("[{}]", list(600)));
    let open = many.replace("{ pictures: 6 }", "{}");
    let message = "`series.harbor.pictures` is missing: there are 1200 combinations, expected at \
                   most 999 pictures";
    assert_eq!(problems(&open)[0].message, message);
    let large = many.replace(
        "  harbor: { pictures: 6 }",
        "  a: { pictures: 999 }\n  b: { pictures: 999 }\n  c: { pictures: 999 }",
    );
    let message = "`series` must have at most 2048 pictures in all, found 2997";
    assert_eq!(problems(&large)[0].message, message);
    let vast = many.replace("[by day, at night]", &format!("[{}]", list(2000)));
    let message = "series `harbor` must have at most 1048576 combinations of values";
    assert_eq!(problems(&vast)[0].message, message);
}

#[test]
fn the_format_is_named_and_strict() {
    let wrong = "populate/panel/1: `schema` must be `populate/series/1`, found `populate/panel/1`";
    assert_eq!(problems_with("populate/series/1", "populate/panel/1"), [wrong]);
    let messages: Vec<String> = problems("{}").into_iter().map(|p| p.message).collect();
    let missing = ["schema", "name", "base", "templates", "series"];
    assert_eq!(messages, missing.map(|key| format!("`{key}` is missing")));
    let problem = one(&SMALL.replace("templates:", "template:"));
    assert_eq!(problem.message, "unknown key `template`");
    assert_eq!(problem.hint.as_deref(), Some("did you mean `templates`?"));
    assert_eq!(problems(&SMALL.replace("  harbor: { pictures: 6 }", "  - harbor")).len(), 1);
}

#[test]
fn without_guidance_nothing_is_held_against_a_picture() {
    let text = format!("{SMALL}guidance_scale: 1\nnegative: a person\n");
    let problem = one(&text);
    assert!(problem.message.starts_with("`negative` has no meaning"), "{problem:?}");
    assert_eq!((problem.line, problem.column), (12, 11));
}

#[test]
fn the_schema_is_strict_and_names_what_must_be_given() {
    let schema = json_schema();
    assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
    assert_eq!(schema["additionalProperties"], false);
    let required = serde_json::json!(["schema", "name", "base", "templates", "series"]);
    assert_eq!(schema["required"], required);
    assert_eq!(schema["properties"]["templates"]["additionalProperties"]["type"], "string");
}

#[test]
fn the_shipped_series_files_resolve() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("series");
    let mut sizes = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = load(&path).unwrap_or_else(|error| panic!("{error}: {:#?}", error.problems));
        assert_eq!(Some(file.name.as_str()), path.file_stem().and_then(|stem| stem.to_str()));
        let sizes_of_one: Vec<usize> = file.series.iter().map(|s| s.pictures.len()).collect();
        sizes.push((file.name, sizes_of_one));
    }
    sizes.sort();
    let expected = [("postcards", vec![6; 4]), ("sd15", vec![12; 8])];
    assert_eq!(sizes, expected.map(|(name, sizes)| (name.to_owned(), sizes)));
}

#[test]
fn the_file_in_the_documentation_resolves() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/series.md");
    let text = String::from_utf8(std::fs::read(path).unwrap()).unwrap();
    let (_, behind) = text.split_once("```yaml\n").unwrap();
    let (yaml, _) = behind.split_once("```").unwrap();
    let sizes: Vec<usize> = file(yaml).series.iter().map(|s| s.pictures.len()).collect();
    assert_eq!(sizes, [6, 4]);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = load(Path::new("no/such.yaml")).unwrap_err();
    assert!(matches!(error.kind, RecipeErrorKind::Read(_)), "{error}");
    let too_large = "#".repeat(usize::try_from(MAX_RECIPE_BYTES).unwrap() + 1);
    let error = parse(&too_large, "t.yaml").unwrap_err();
    assert!(matches!(error.kind, RecipeErrorKind::TooLarge { .. }), "{error}");
}

proptest! {
    #[test]
    fn no_changed_file_panics_and_spans_stay_in_the_text(
        at in 0..SMALL.len(),
        len in 0_usize..12,
        new in "[ -~\n]{0,6}",
    ) {
        let end = (at + len).min(SMALL.len());
        let text = format!("{}{new}{}", &SMALL[..at], &SMALL[end..]);
        if let Err(error) = parse(&text, "t.yaml") {
            for problem in error.problems {
                prop_assert!(text.get(problem.span.clone()).is_some(), "{:?} of {}", problem, text);
            }
        }
    }
}

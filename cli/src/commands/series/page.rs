//! The contact sheet as one page for browsers and printers: every picture with its instruction, and
//! how the series hold together. No script, no network; all pictures stand in the page itself.

use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::album::{Album, Page};
use super::consistency::{Consistency, bracketed};
use super::studio::Provenance;
use crate::error::JobError;
use crate::picture;

/// What the page may load: nothing but what it brings.
const CSP: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; \
                   form-action 'none'";
const STYLE: &str = include_str!("page.css");
/// Longest side of a picture in the page, in pixels; larger ones are reduced. On paper, where a
/// picture is at most 3 cm wide, more would not be seen.
const LONGEST_PX: u32 = 256;
/// JPEG quality of reduced pictures.
const QUALITY: u8 = 85;

/// The page of an album.
///
/// # Errors
///
/// A picture that cannot be read.
pub(super) fn page(album: &Album<'_>, consistency: &Consistency) -> Result<String, JobError> {
    let mut sections = Vec::new();
    for (name, places) in album.series() {
        let mut figures = Vec::with_capacity(places.len());
        for place in places {
            let source = data_uri(&album.image(place)?)?;
            figures.push(figure(&album.pages()[place], &source));
        }
        sections.push(section(name, &figures, consistency));
    }
    let name = album.name();
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(CSP);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light";
                title { (name) " · contact sheet" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (name) }
                    p {
                        (consistency.pictures) " pictures of " (consistency.series) " series, drawn by "
                        (drawn_by(album.provenance())) "."
                    }
                }
                main { @for section in &sections { (section) } }
                footer {
                    (figures(consistency))
                    (provenance(album.provenance()))
                }
            }
        }
    };
    Ok(markup.into_string())
}

/// One series: a heading and its pictures in order.
fn section(name: &str, figures: &[Markup], consistency: &Consistency) -> Markup {
    html! {
        section aria-labelledby={ "series-" (name) } {
            h2 id={ "series-" (name) } {
                (name)
                @if let Some(vendi) = consistency.vendi.get(name) {
                    " " small { (format!("{vendi:.2}")) " of " (figures.len()) " pictures in effect" }
                }
            }
            div class="pictures" { @for figure in figures { (figure) } }
        }
    }
}

/// One picture with its instruction and what draws it again.
fn figure(page: &Page<'_>, source: &str) -> Markup {
    let (instruction, seed) = (&page.picture.instruction, page.picture.seed);
    html! {
        figure {
            img src=(source) alt=(instruction);
            figcaption {
                b { (page.number) } " " (instruction)
                span { "seed " (seed) }
            }
        }
    }
}

/// How the series hold together, as a table, and what was not measured.
fn figures(consistency: &Consistency) -> Markup {
    html! {
        section aria-labelledby="together" {
            h2 id="together" { "How the series hold together" }
            @if !consistency.spaces.is_empty() {
                table {
                    caption {
                        "Share of the squared distances between pictures that lies between series. "
                        "Pictures that repeat each other raise it, so it is to be read beside their "
                        "diversity."
                    }
                    thead {
                        tr {
                            th scope="col" { "distance" }
                            th scope="col" { "R²" }
                            th scope="col" { "by chance" }
                            th scope="col" { "ω²" }
                            th scope="col" { "p" }
                            th scope="col" { "silhouette" }
                        }
                    }
                    tbody {
                        @for space in &consistency.spaces {
                            tr {
                                th scope="row" { (space.space) }
                                td { (bracketed(&space.coherence.r2)) }
                                td { (format!("{:.3}", space.coherence.r2_permuted)) }
                                td { (format!("{:.3}", space.coherence.omega2)) }
                                td { (format!("{:.3}", space.coherence.p)) }
                                td { (format!("{:.3}", space.coherence.silhouette)) }
                            }
                        }
                    }
                }
            }
            ul { @for line in consistency.lines().iter().skip(consistency.spaces.len()) { li { (line) } } }
        }
    }
}

fn provenance(provenance: &Provenance) -> Markup {
    let mut facts = vec![
        ("sampler", provenance.sampler.to_string()),
        ("guidance", provenance.guidance_scale.to_string()),
        ("size", format!("{0} × {0} px", provenance.side_px)),
        ("precision", provenance.precision.clone()),
        ("program", provenance.tool.clone()),
        ("base", provenance.base_sha256.clone()),
    ];
    if !provenance.negative_prompt.is_empty() {
        facts.push(("not drawn", provenance.negative_prompt.clone()));
    }
    for adapter in &provenance.adapters {
        facts.push(("adapter", adapter.tensors_sha256.clone()));
    }
    if let Some(sha256) = &provenance.evaluator_sha256 {
        facts.push(("evaluator", sha256.clone()));
    }
    html! {
        section aria-labelledby="provenance" {
            h2 id="provenance" { "Provenance" }
            dl { @for (name, value) in &facts { div { dt { (name) } dd { (value) } } } }
        }
    }
}

/// The base and its adapters in words.
fn drawn_by(provenance: &Provenance) -> String {
    let mut parts = vec![provenance.base.clone()];
    let dosed = provenance.adapters.iter();
    parts.extend(dosed.map(|adapter| format!("{} at dose {}", adapter.name, adapter.dose)));
    parts.join(" with ")
}

/// A picture as text within the page: a small one as it is, a larger one reduced.
fn data_uri(image: &RgbImage) -> Result<String, JobError> {
    let (width, height) = image.dimensions();
    if width.max(height) <= LONGEST_PX {
        let png = picture::png(image, &[])?;
        return Ok(format!("data:image/png;base64,{}", report::base64(&png)));
    }
    let mut jpeg = Vec::new();
    picture::within(image, LONGEST_PX)
        .write_with_encoder(JpegEncoder::new_with_quality(&mut jpeg, QUALITY))
        .map_err(|error| JobError::data(format!("a picture cannot be encoded: {error}")))?;
    Ok(format!("data:image/jpeg;base64,{}", report::base64(&jpeg)))
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    /// An album of two series with all its pictures, and figures of it.
    fn check(side_px: u32, check: &dyn Fn(&str)) {
        let text = "schema: populate/series/1\nname: week\nbase: postcards\n\
                    templates: { card: \"a <b>{thing}</b> & more\" }\n\
                    slots: { thing: [boat, tower] }\nseries: { harbor: {}, winter: {} }\n";
        let file = recipes::series::parse(text, "t.yaml").unwrap();
        let provenance = Provenance::imagined();
        let dir = tempfile::tempdir().unwrap();
        let mut album = Album::open(dir.path(), &file, &provenance, "5".repeat(64)).unwrap();
        for place in album.missing() {
            album.add(place, &RgbImage::from_pixel(side_px, side_px, Rgb([90; 3]))).unwrap();
        }
        let consistency = Consistency {
            series: 2,
            pictures: 4,
            spaces: Vec::new(),
            vendi: [("harbor".to_owned(), 1.5)].into(),
            vendi_mean: None,
            clip_t: None,
            nearest_reference: None,
            references: 0,
            refused: Vec::new(),
        };
        check(&page(&album, &consistency).unwrap());
    }

    #[test]
    fn the_page_brings_all_that_it_shows() {
        check(8, &|page| {
            assert!(page.contains("content=\"default-src 'none'; img-src data:;"));
            assert!(!page.contains("<script") && !page.contains("src=\"http"));
            assert_eq!(page.matches("<img src=\"data:image/png;base64,").count(), 4);
            assert_eq!(page.matches("<figcaption>").count(), 4);
            assert!(page.contains("@media print") && page.contains("@page"));
        });
    }

    #[test]
    fn instructions_stand_below_their_pictures_and_cannot_leave_them() {
        check(8, &|page| {
            let escaped = "a &lt;b&gt;boat&lt;/b&gt; &amp; more";
            assert_eq!(page.matches(escaped).count(), 4, "two captions and two alternatives");
            assert!(!page.contains("<b>boat"));
            assert!(page.contains("1.50 of 2 pictures in effect"));
        });
    }

    #[test]
    fn large_pictures_are_reduced() {
        check(LONGEST_PX + 1, &|page| {
            assert_eq!(page.matches("<img src=\"data:image/jpeg;base64,/9j/").count(), 4);
        });
    }
}

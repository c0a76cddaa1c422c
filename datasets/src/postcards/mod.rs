//! The known little world: picture postcards whose factors are exact labels.
//!
//! Owns the factors, their published [`prior`], the renderer and the captions. What is trained on
//! these pictures, and how it is measured, is left to others.

mod backdrop;
mod caption;
pub mod concept;
mod paint;
mod palette;
mod piece;
pub mod prior;
mod scene;
mod style;
mod subject;

pub use caption::{Detail, caption, lexicon};
pub use paint::paint;
pub use scene::{Factors, Nuisance, Scene, scene, scene_with};

/// One axis of a postcard; a picture bears exactly one value of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Facet {
    /// What is shown, large and in the middle.
    Subject,
    /// The color of the subject's main body.
    Color,
    /// Hour or season of the backdrop.
    Setting,
    /// The manner of drawing.
    Style,
}

impl Facet {
    /// Every facet, in the order of the thesaurus.
    pub const ALL: [Self; 4] = [Self::Subject, Self::Color, Self::Setting, Self::Style];

    /// The facet's name in thesaurus and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Color => "color",
            Self::Setting => "setting",
            Self::Style => "style",
        }
    }

    /// The names of this facet's values, in the order of their `ALL`.
    pub fn values(self) -> Vec<&'static str> {
        match self {
            Self::Subject => Subject::ALL.map(Subject::name).to_vec(),
            Self::Color => Color::ALL.map(Color::name).to_vec(),
            Self::Setting => Setting::ALL.map(Setting::name).to_vec(),
            Self::Style => Style::ALL.map(Style::name).to_vec(),
        }
    }
}

/// Declares one facet's values with the name in tables and the phrase in captions.
macro_rules! facet_values {
    ($(#[$doc:meta])* $facet:ident, $count:literal: $($(#[$value_doc:meta])* $value:ident = $name:literal, $phrase:literal;)+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $facet {
            $($(#[$value_doc])* $value,)+
        }

        impl $facet {
            /// Every value, from the most to the least likely under [`prior`].
            pub const ALL: [Self; $count] = [$(Self::$value,)+];

            /// The value's id in thesaurus and tables.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $name,)+
                }
            }

            /// The words that name the value in a caption.
            pub fn phrase(self) -> &'static str {
                match self {
                    $(Self::$value => $phrase,)+
                }
            }

            /// The position in [`Self::ALL`].
            pub fn position(self) -> usize {
                self as usize
            }

            /// The value of that name, if there is one.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|value| value.name() == name)
            }
        }
    };
}

facet_values! {
    /// What a postcard shows.
    Subject, 12:
    /// A sailing boat on water.
    Boat = "boat", "boat";
    /// A house with door, windows and chimney.
    House = "house", "house";
    /// A round-crowned tree.
    Tree = "tree", "tree";
    /// A sun with rays and a face.
    Sun = "sun", "sun";
    /// A flower with stem and leaves.
    Flower = "flower", "flower";
    /// A bird with spread wings.
    Bird = "bird", "bird";
    /// A mountain with a snow cap.
    Mountain = "mountain", "mountain";
    /// A fish leaping from the water.
    Fish = "fish", "fish";
    /// An iron lattice tower on four feet.
    Tower = "tower", "tower";
    /// A crescent moon with a face.
    Moon = "moon", "moon";
    /// A banded lighthouse with its beams.
    Lighthouse = "lighthouse", "lighthouse";
    /// A hot-air balloon.
    Balloon = "balloon", "balloon";
}

facet_values! {
    /// The color of the subject's main body.
    Color, 8:
    /// Red.
    Red = "red", "red";
    /// Blue.
    Blue = "blue", "blue";
    /// Yellow.
    Yellow = "yellow", "yellow";
    /// Green.
    Green = "green", "green";
    /// Orange.
    Orange = "orange", "orange";
    /// White.
    White = "white", "white";
    /// Purple.
    Purple = "purple", "purple";
    /// Pink.
    Pink = "pink", "pink";
}

facet_values! {
    /// Hour or season of the backdrop.
    Setting, 4:
    /// Blue sky over green hills or sea.
    Day = "day", "by day";
    /// Orange sky, violet land.
    Dusk = "dusk", "at dusk";
    /// Dark blue sky with stars.
    Night = "night", "at night";
    /// White ground, grey sky, falling flakes.
    Snow = "snow", "in the snow";
}

facet_values! {
    /// The manner of drawing.
    Style, 3:
    /// Flat areas of full color, a banded sky, a straight border.
    Print = "print", "print";
    /// Dark outlines over pale washes on grained paper.
    Ink = "ink", "ink";
    /// Soft edges, uneven pigment, a ragged paper margin.
    Watercolor = "watercolor", "watercolor";
}

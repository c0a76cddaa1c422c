//! Random draws, each a function of (seed, step, sample, purpose).
//!
//! Every draw has its own stream, so that a draw that comes or goes moves no other one: another
//! batch split or a resume gives the same numbers. Nothing here keeps a state.
//!
//! Key of a stream: `sha256("populate/rng/1" ‖ seed ‖ purpose ‖ step ‖ sample)`, integers as u64 in
//! little-endian order, purpose as its text in UTF-8 after its length; the 32 bytes seed a `ChaCha12`.

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

/// Number of the scheme; a run made under another number cannot be resumed.
pub const SCHEME: u64 = 1;

const DOMAIN: &[u8] = b"populate/rng/1";
const KEYED_DOMAIN: &[u8] = b"populate/rng/1/keyed";

/// A stream of random numbers.
pub type Stream = ChaCha12Rng;

/// What a draw is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Purpose {
    /// Start values of an adapter.
    Init,
    /// Start values of a network that is trained from scratch.
    InitParameter,
    /// Order of the pictures; the step is the epoch.
    Order,
    /// Choice or detail of a caption.
    Caption,
    /// Whether a caption is dropped.
    CaptionDropout,
    /// Whether a picture is mirrored.
    Flip,
    /// Place of a crop.
    Crop,
    /// Draw from the autoencoder's posterior.
    Posterior,
    /// Noise level of a training sample.
    Timestep,
    /// Noise of a training sample.
    Noise,
    /// Per-channel offset of that noise.
    OffsetNoise,
    /// Values that the adapter's dropout removes.
    AdapterDropout,
    /// Noise of validation.
    Validation,
    /// Start noise of previews.
    Preview,
    /// Start noise of class pictures.
    ClassImage,
    /// Start noise of the pictures of a sham.
    Sham,
    /// Start noise of the census, `x_T`.
    CensusStart,
    /// Step noise of the census, `z`.
    CensusStep,
    /// Random directions of a placebo.
    Placebo,
    /// Resampling of a bootstrap.
    Bootstrap,
    /// Signs of a sign-flip test.
    SignFlip,
    /// Facets of a rendered scene.
    Scene,
    /// Place, size and light of a rendered scene.
    Nuisance,
    /// Which seeds of a mixture are asked.
    PromptMix,
    /// Start noise of pictures that a user asks for.
    Generate,
    /// Step noise of previews, class pictures and generated pictures.
    SamplerStep,
    /// Noise level within its part of the range, of a likelihood.
    LikelihoodLevel,
    /// Noise of a likelihood.
    LikelihoodNoise,
    /// Samples of a synthetic world.
    World,
}

impl Purpose {
    /// The purpose's text within the key; never changes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::InitParameter => "init.parameter",
            Self::Order => "order",
            Self::Caption => "caption",
            Self::CaptionDropout => "caption.dropout",
            Self::Flip => "flip",
            Self::Crop => "crop",
            Self::Posterior => "posterior",
            Self::Timestep => "timestep",
            Self::Noise => "noise",
            Self::OffsetNoise => "noise.offset",
            Self::AdapterDropout => "adapter.dropout",
            Self::Validation => "validation",
            Self::Preview => "preview",
            Self::ClassImage => "class.image",
            Self::Sham => "sham",
            Self::CensusStart => "census.x_T",
            Self::CensusStep => "census.z",
            Self::Placebo => "placebo",
            Self::Bootstrap => "bootstrap",
            Self::SignFlip => "sign.flip",
            Self::Scene => "scene",
            Self::Nuisance => "scene.nuisance",
            Self::PromptMix => "prompt.mix",
            Self::Generate => "generate",
            Self::SamplerStep => "sampler.z",
            Self::LikelihoodLevel => "likelihood.level",
            Self::LikelihoodNoise => "likelihood.noise",
            Self::World => "world",
        }
    }
}

/// The stream of one draw.
///
/// `sample` is the index within the step's whole batch, never within a part of it.
pub fn stream(seed: u64, step: u64, sample: u64, purpose: Purpose) -> Stream {
    let mut hash = Sha256::new();
    hash.update(DOMAIN);
    hash.update(seed.to_le_bytes());
    update_text(&mut hash, purpose.name());
    hash.update(step.to_le_bytes());
    hash.update(sample.to_le_bytes());
    ChaCha12Rng::from_seed(hash.finalize().into())
}

/// The stream of a thing that has a name, such as a parameter by its path.
pub fn keyed(seed: u64, label: &str) -> Stream {
    let mut hash = Sha256::new();
    hash.update(KEYED_DOMAIN);
    hash.update(seed.to_le_bytes());
    update_text(&mut hash, label);
    ChaCha12Rng::from_seed(hash.finalize().into())
}

fn update_text(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text.as_bytes());
}

/// A number in [0, 1), on a grid of 2⁻⁵³.
pub fn uniform(stream: &mut Stream) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact in f64")]
    let bits = (stream.next_u64() >> 11) as f64;
    bits * (1.0 / 9_007_199_254_740_992.0)
}

/// A whole number below `n`, all with equal probability.
///
/// # Panics
///
/// If `n` is 0.
pub fn below(stream: &mut Stream, n: u64) -> u64 {
    assert!(n > 0, "no number is below 0");
    // Lemire 2019, arXiv:1805.10941, algorithm 5: multiply, and reject the few uneven products.
    let threshold = n.wrapping_neg() % n;
    loop {
        let product = u128::from(stream.next_u64()) * u128::from(n);
        #[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
        let low = product as u64;
        if low >= threshold {
            return (product >> 64) as u64;
        }
    }
}

/// Brings `items` into a random order, all orders with equal probability (Fisher–Yates).
pub fn shuffle<T>(stream: &mut Stream, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        #[expect(clippy::cast_possible_truncation, reason = "the draw is at most `last`")]
        let other = below(stream, last as u64 + 1) as usize;
        items.swap(last, other);
    }
}

/// `n` independent numbers from N(0, 1).
///
/// Box–Muller in f64 with `libm`, whose results do not follow the platform, then cast to f32. The
/// first numbers do not depend on `n`.
pub fn normals(stream: &mut Stream, n: usize) -> Vec<f32> {
    let mut numbers = Vec::with_capacity(n + 1);
    while numbers.len() < n {
        // 1 − u lies in (0, 1], so that the logarithm is finite.
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - uniform(stream)));
        let angle = std::f64::consts::TAU * uniform(stream);
        #[expect(clippy::cast_possible_truncation, reason = "noise is f32 by decision")]
        numbers.extend([(radius * libm::cos(angle)) as f32, (radius * libm::sin(angle)) as f32]);
    }
    numbers.truncate(n);
    numbers
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn streams_follow_the_published_key() {
        // From a ChaCha12 and sha256 written independently in Python.
        let mut noise = stream(7, 1, 2, Purpose::Noise);
        assert_eq!(noise.next_u64(), 0x964c_8347_dcfc_5a82);
        assert_eq!(noise.next_u64(), 0xffa1_5b25_eb02_db50);
        assert_eq!(stream(0, 0, 0, Purpose::CensusStart).next_u64(), 0x11b9_7e78_bcb4_0f7a);
        assert_eq!(keyed(7, "unet.conv_in.weight").next_u64(), 0x3356_ff3c_2007_701b);
    }

    #[test]
    fn normals_are_box_muller_of_the_uniform_numbers() {
        let numbers = normals(&mut stream(7, 1, 2, Purpose::Noise), 4);
        let expected = [1.330_029_4_f32, -0.012_068_852, 0.617_159_2, 2.137_980_3];
        for (number, expected) in numbers.iter().zip(expected) {
            assert!((number - expected).abs() < 1e-6, "{numbers:?}");
        }
    }

    #[test]
    fn uniform_numbers_lie_on_the_published_grid() {
        let mut noise = stream(7, 1, 2, Purpose::Noise);
        assert!((uniform(&mut noise) - 0.587_104_992_909_176_6).abs() < 1e-16);
        assert!((uniform(&mut noise) - 0.998_555_847_890_212_2).abs() < 1e-16);
    }

    #[test]
    fn normals_have_mean_0_and_variance_1() {
        let n = 200_000;
        let numbers = normals(&mut stream(3, 0, 0, Purpose::Noise), n);
        let sum: f64 = numbers.iter().copied().map(f64::from).sum();
        let squares: f64 = numbers.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        let fourths: f64 = numbers.iter().map(|&x| f64::from(x).powi(4)).sum();
        assert!((sum / 200_000.0).abs() < 0.01);
        assert!((squares / 200_000.0 - 1.0).abs() < 0.015);
        assert!((fourths / 200_000.0 - 3.0).abs() < 0.15);
    }

    #[test]
    fn numbers_below_three_are_equally_frequent() {
        let mut order = stream(5, 0, 0, Purpose::Order);
        let mut counts = [0_u32; 3];
        for _ in 0..30_000 {
            counts[usize::try_from(below(&mut order, 3)).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| count.abs_diff(10_000) < 400), "{counts:?}");
    }

    #[test]
    fn orders_of_three_are_equally_frequent() {
        let mut counts = std::collections::BTreeMap::new();
        for epoch in 0..6000 {
            let mut items = [0, 1, 2];
            shuffle(&mut stream(5, epoch, 0, Purpose::Order), &mut items);
            *counts.entry(items).or_insert(0_u32) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|count| count.abs_diff(1000) < 150), "{counts:?}");
    }

    #[test]
    fn no_two_purposes_share_a_name() {
        let purposes = [
            Purpose::Init,
            Purpose::InitParameter,
            Purpose::Order,
            Purpose::Caption,
            Purpose::CaptionDropout,
            Purpose::Flip,
            Purpose::Crop,
            Purpose::Posterior,
            Purpose::Timestep,
            Purpose::Noise,
            Purpose::OffsetNoise,
            Purpose::AdapterDropout,
            Purpose::Validation,
            Purpose::Preview,
            Purpose::ClassImage,
            Purpose::Sham,
            Purpose::CensusStart,
            Purpose::CensusStep,
            Purpose::Placebo,
            Purpose::Bootstrap,
            Purpose::SignFlip,
            Purpose::Scene,
            Purpose::Nuisance,
            Purpose::PromptMix,
            Purpose::Generate,
            Purpose::SamplerStep,
            Purpose::LikelihoodLevel,
            Purpose::LikelihoodNoise,
            Purpose::World,
        ];
        let names: std::collections::BTreeSet<_> = purposes.iter().map(|p| p.name()).collect();
        assert_eq!(names.len(), purposes.len());
    }

    #[test]
    fn seed_step_sample_and_purpose_each_change_the_stream() {
        let first = |mut stream: Stream| stream.next_u64();
        let all = [
            first(stream(1, 2, 3, Purpose::Noise)),
            first(stream(9, 2, 3, Purpose::Noise)),
            first(stream(1, 9, 3, Purpose::Noise)),
            first(stream(1, 2, 9, Purpose::Noise)),
            first(stream(1, 3, 2, Purpose::Noise)),
            first(stream(1, 2, 3, Purpose::Timestep)),
            first(keyed(1, "noise")),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    proptest! {
        #[test]
        fn a_batch_split_moves_no_draw(seed: u64, step: u64, n in 1_u64..32, micro in 1_usize..8) {
            let draw = |sample| normals(&mut stream(seed, step, sample, Purpose::Noise), 3);
            let whole: Vec<_> = (0..n).map(draw).collect();
            let samples: Vec<u64> = (0..n).collect();
            let split: Vec<_> = samples.chunks(micro).flat_map(|part| part.iter().map(|&s| draw(s))).collect();
            prop_assert_eq!(whole, split);
        }

        #[test]
        fn more_normals_begin_with_the_same_ones(seed: u64, n in 0_usize..40, more in 0_usize..40) {
            let few = normals(&mut stream(seed, 0, 0, Purpose::Noise), n);
            let many = normals(&mut stream(seed, 0, 0, Purpose::Noise), n + more);
            prop_assert_eq!(&many[..n], &few[..]);
        }

        #[test]
        fn draws_stay_in_their_range(seed: u64, n in 1_u64..u64::MAX) {
            let mut order = stream(seed, 0, 0, Purpose::Order);
            prop_assert!(below(&mut order, n) < n);
            prop_assert!((0.0..1.0).contains(&uniform(&mut order)));
        }

        #[test]
        fn a_shuffle_keeps_all_items(seed: u64, n in 0_usize..100) {
            let mut items: Vec<usize> = (0..n).collect();
            shuffle(&mut stream(seed, 0, 0, Purpose::Order), &mut items);
            items.sort_unstable();
            prop_assert_eq!(items, (0..n).collect::<Vec<_>>());
        }
    }
}

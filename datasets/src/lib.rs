//! Turns images and captions, found or rendered, into deterministic host batches.
//!
//! [`open`] lists, hashes and decodes what a recipe names, and reports every problem at once;
//! [`Batches`] says which pictures a training step sees, as a pure function of seed and step;
//! [`Dataset::read_ahead`] decodes them on worker threads.
//! [`postcards`] is a world of drawn pictures whose factors are known. Networks, devices and files
//! that are written are left to others.

mod ahead;
mod batch;
mod bucket;
mod caption;
mod dataset;
mod decode;
mod error;
mod index;
mod order;
pub mod postcards;
mod problem;
mod warning;

pub use ahead::Pictures;
pub use batch::{Batches, MicroBatch, Sample};
pub use bucket::{Bucket, Fit, assigned, fit, table};
pub use dataset::{Dataset, Example, Placement, Role, open};
pub use decode::{Mirror, Pixels, image_from_file, pixels};
pub use error::DatasetError;
pub use order::order;
pub use postcards::concept;
pub use problem::{Problem, ProblemKind};
pub use warning::Warning;

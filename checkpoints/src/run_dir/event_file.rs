//! Event files that TensorBoard reads: scalars, pictures, texts, and the mark that a resumed run leaves.
//!
//! `metrics.jsonl` holds the truth; these files only show it. Files of a run are read in the order of their names, so a
//! name begins with a time that never goes back, even if the clock does.

use std::path::{Path, PathBuf};

use prost::Message;

use super::event_proto::{
    Dim, Event, Image, Metadata, PluginData, SessionLog, Shape, Summary, Tensor, Value,
};
use crate::error::CheckpointError;
use crate::fs::{DurableFile, Fs, create_dir_durably};

const PREFIX: &str = "events.out.tfevents.";
const VERSION: &str = "brain.Event:2";
const STRING: i32 = 7;
const RGB: i32 = 3;
const START: i32 = 1;

/// Who writes a file, for its name.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// Unix seconds.
    pub wall_time: f64,
    /// Name of the machine.
    pub host: &'a str,
    /// Process id.
    pub pid: u32,
    /// Four hex digits of the attempt.
    pub attempt: &'a str,
}

/// Place of a value: its step and the Unix seconds at which it was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct At {
    /// Optimizer steps done.
    pub step: u64,
    /// Unix seconds.
    pub wall_time: f64,
}

/// A picture as TensorBoard wants it: PNG bytes with their size in pixels.
#[derive(Debug, Clone, Copy)]
pub struct Png<'a> {
    /// Width.
    pub width_px: u32,
    /// Height.
    pub height_px: u32,
    /// The encoded RGB picture.
    pub bytes: &'a [u8],
}

/// One event file, open for appending. One value per tag and step: every sample picture needs its own tag.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: Box<dyn DurableFile>,
}

impl EventFile {
    /// Creates the file of one attempt in `dir`. If the run was resumed, readers are told to drop what an earlier attempt
    /// wrote for steps after `resumed_after`, the last committed one.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`], also if the file exists.
    pub fn create(
        fs: &dyn Fs,
        dir: &Path,
        origin: &Origin<'_>,
        resumed_after: Option<u64>,
    ) -> Result<Self, CheckpointError> {
        create_dir_durably(fs, dir)?;
        let newest = fs.list(dir)?.iter().filter_map(|path| seconds_of(path)).max();
        let seconds = newest.map_or(0, |newest| newest + 1).max(whole_seconds(origin.wall_time));
        let host: String = origin
            .host
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' })
            .collect();
        let name = format!("{PREFIX}{seconds:010}.{host}.{}.{}", origin.pid, origin.attempt);
        let path = dir.join(name);
        let mut events = Self { file: fs.create_new(&path)?, path };
        events.write(&Event {
            wall_time: Some(origin.wall_time),
            file_version: Some(VERSION.to_owned()),
            ..Event::default()
        })?;
        if let Some(committed) = resumed_after {
            // Readers drop points with this step or later, hence the step after the committed one.
            let at = At { step: committed + 1, wall_time: origin.wall_time };
            events
                .write(&Event { session_log: Some(SessionLog { status: START }), ..event(at) })?;
        }
        Ok(events)
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A number.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn scalar(&mut self, at: At, tag: &str, value: f32) -> Result<(), CheckpointError> {
        self.value(at, Value { tag: tag.to_owned(), scalar: Some(value), ..Value::default() })
    }

    /// A picture.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn image(&mut self, at: At, tag: &str, png: Png<'_>) -> Result<(), CheckpointError> {
        let image = Image {
            height: png.height_px.cast_signed(),
            width: png.width_px.cast_signed(),
            colorspace: RGB,
            encoded: png.bytes.to_vec(),
        };
        self.value(at, Value { tag: tag.to_owned(), image: Some(image), ..Value::default() })
    }

    /// A text, which TensorBoard shows as Markdown.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn text(&mut self, at: At, tag: &str, text: &str) -> Result<(), CheckpointError> {
        let tensor = Tensor {
            dtype: STRING,
            shape: Some(Shape { dim: vec![Dim { size: 1 }] }),
            string_val: vec![text.as_bytes().to_vec()],
        };
        let plugin_data = Some(PluginData { plugin_name: "text".to_owned() });
        self.value(
            at,
            Value {
                tag: tag.to_owned(),
                tensor: Some(tensor),
                metadata: Some(Metadata { plugin_data }),
                ..Value::default()
            },
        )
    }

    /// Makes all records durable.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn sync(&mut self) -> Result<(), CheckpointError> {
        Ok(self.file.fsync()?)
    }

    fn value(&mut self, at: At, value: Value) -> Result<(), CheckpointError> {
        self.write(&Event { summary: Some(Summary { value: vec![value] }), ..event(at) })
    }

    fn write(&mut self, event: &Event) -> Result<(), CheckpointError> {
        Ok(self.file.write_all(&record(&event.encode_to_vec()))?)
    }
}

fn event(at: At) -> Event {
    Event { wall_time: Some(at.wall_time), step: Some(at.step.cast_signed()), ..Event::default() }
}

/// Length, its checksum, data, its checksum.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut bytes = Vec::with_capacity(data.len() + 16);
    bytes.extend_from_slice(&length);
    bytes.extend_from_slice(&masked_crc(&length).to_le_bytes());
    bytes.extend_from_slice(data);
    bytes.extend_from_slice(&masked_crc(data).to_le_bytes());
    bytes
}

/// CRC-32C, rotated and shifted so that a checksum of data with checksums in it stays strong.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The time in the name of an event file.
fn seconds_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix(PREFIX)?.split('.').next()?.parse().ok()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates; only orders file names"
)]
fn whole_seconds(wall_time: f64) -> u64 {
    wall_time as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::StdFs;

    const AT: At = At { step: 3, wall_time: 1.5 };

    fn origin(wall_time: f64) -> Origin<'static> {
        Origin { wall_time, host: "node.1/x", pid: 7, attempt: "7f3a" }
    }

    fn events_in(path: &Path) -> Vec<Event> {
        let bytes = crate::fs::read(path).unwrap();
        let mut rest = bytes.as_slice();
        let mut events = Vec::new();
        while !rest.is_empty() {
            let n = usize::try_from(u64::from_le_bytes(rest[..8].try_into().unwrap())).unwrap();
            assert_eq!(rest[..n + 16], record(&rest[12..12 + n]));
            events.push(Event::decode(&rest[12..12 + n]).unwrap());
            rest = &rest[n + 16..];
        }
        events
    }

    #[test]
    fn checksums_have_the_published_values() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(masked_crc(b"123456789"), 0xC78A_B0E5);
        assert_eq!(hex::encode(record(b"")), "000000000000000029039807d8ea82a2");
    }

    #[test]
    fn the_version_record_has_the_published_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let events = EventFile::create(&StdFs, folder.path(), &origin(0.0), None).unwrap();
        let expected =
            "1800000000000000a37f4b220900000000000000001a0d627261696e2e4576656e743a32eedf28a3";
        assert_eq!(hex::encode(crate::fs::read(events.path()).unwrap()), expected);
    }

    #[test]
    fn a_resumed_file_begins_with_the_step_after_the_committed_one() {
        let folder = tempfile::tempdir().unwrap();
        let events = EventFile::create(&StdFs, folder.path(), &origin(9.0), Some(1200)).unwrap();
        let found = events_in(events.path());
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[1].step, found[1].session_log),
            (Some(1201), Some(SessionLog { status: 1 }))
        );
    }

    #[test]
    fn values_come_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(&StdFs, folder.path(), &origin(9.0), None).unwrap();
        events.scalar(AT, "loss", 0.0).unwrap();
        events
            .image(AT, "preview/0", Png { width_px: 64, height_px: 48, bytes: b"\x89PNG" })
            .unwrap();
        events.text(AT, "recipe", "name: x").unwrap();
        events.sync().unwrap();
        let found = events_in(events.path());
        let value = |idx: usize| found[idx].summary.clone().unwrap().value[0].clone();
        assert_eq!(found[1].step, Some(3));
        assert_eq!(value(1).scalar, Some(0.0));
        let image = value(2).image.unwrap();
        assert_eq!((image.width, image.height, image.colorspace), (64, 48, 3));
        assert_eq!(value(3).tensor.unwrap().string_val, [b"name: x"]);
        assert_eq!(value(3).metadata.unwrap().plugin_data.unwrap().plugin_name, "text");
    }

    #[test]
    fn names_are_in_order_even_if_the_clock_goes_back() {
        let folder = tempfile::tempdir().unwrap();
        let name = |wall_time: f64| {
            let events =
                EventFile::create(&StdFs, folder.path(), &origin(wall_time), None).unwrap();
            events.path().file_name().unwrap().to_str().unwrap().to_owned()
        };
        let (first, second, third) =
            (name(1_700_000_000.9), name(1_600_000_000.0), name(1_800_000_000.0));
        assert_eq!(first, "events.out.tfevents.1700000000.node_1_x.7.7f3a");
        assert_eq!(second, "events.out.tfevents.1700000001.node_1_x.7.7f3a");
        assert!(first < second && second < third, "{third}");
    }

    #[test]
    fn a_full_disk_is_an_error_of_the_caller() {
        let folder = tempfile::tempdir().unwrap();
        for fail_at in 0.. {
            let fs = crate::fs::faults::FaultyFs::failing_at(fail_at);
            let dir = folder.path().join(fail_at.to_string());
            let written = EventFile::create(&fs, &dir, &origin(9.0), Some(4))
                .and_then(|mut events| events.scalar(AT, "loss", 1.0).and_then(|()| events.sync()));
            assert_eq!(written.is_err(), fs.failed());
            if !fs.failed() {
                break;
            }
        }
    }
}

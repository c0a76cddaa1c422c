//! Backdrops: sky, land or sea, and the small things that distract.

use recipes::draws::{self, Purpose, Stream};
use tiny_skia::{PathBuilder, Transform};

use super::palette::{BackdropTones, backdrop_tones, mix};
use super::piece::{Piece, Pieces};
use super::{Scene, Setting, Subject};

/// Everything on a card but its subject, back to front, in card units.
#[derive(Debug)]
pub(crate) struct Backdrop {
    pub(crate) tones: BackdropTones,
    /// Height of the horizon, 0 (top) to 64.
    pub(crate) horizon: f32,
    /// Behind the subject.
    pub(crate) behind: Vec<Piece>,
    /// In front of the subject.
    pub(crate) front: Vec<Piece>,
}

/// Composes the backdrop that suits a scene's subject and setting.
pub(crate) fn backdrop(scene: &Scene) -> Backdrop {
    let setting = scene.factors.setting;
    let tones = backdrop_tones(setting, &scene.nuisance);
    let mut chance = Chance::new(scene.nuisance.details);
    let horizon = 46.0 + 3.0 * scene.nuisance.horizon;
    let mut behind = Pieces::new(Transform::identity());
    sky_things(setting, &tones, &mut chance, &mut behind);
    let wet = matches!(scene.factors.subject, Subject::Boat | Subject::Fish | Subject::Lighthouse)
        || (matches!(scene.factors.subject, Subject::Sun | Subject::Moon)
            && chance.within(0.0, 1.0) < 0.6);
    if wet {
        sea(horizon, &tones, &mut chance, &mut behind);
    } else {
        land(horizon, &tones, &mut chance, &mut behind);
    }
    let mut front = Pieces::new(Transform::identity());
    if matches!(scene.factors.subject, Subject::Boat | Subject::Fish) {
        waves(scene, &tones, &mut chance, &mut front);
    } else {
        tufts(scene, &tones, &mut chance, &mut front);
    }
    if setting == Setting::Snow {
        flakes(&mut chance, &mut front);
    }
    Backdrop { tones, horizon, behind: behind.into_list(), front: front.into_list() }
}

/// The small draws of one card, in order.
pub(crate) struct Chance(Stream);

impl Chance {
    pub(crate) fn new(details: u64) -> Self {
        Self(draws::stream(details, 0, 0, Purpose::Nuisance))
    }

    pub(crate) fn within(&mut self, low: f32, high: f32) -> f32 {
        #[expect(clippy::cast_possible_truncation, reason = "a picture needs no more than f32")]
        let unit = draws::uniform(&mut self.0) as f32;
        low + (high - low) * unit
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        draws::below(&mut self.0, n)
    }
}

fn sky_things(setting: Setting, tones: &BackdropTones, chance: &mut Chance, pieces: &mut Pieces) {
    if setting == Setting::Night {
        for _ in 0..9 + chance.below(8) {
            let (x, y, r) =
                (chance.within(4.0, 60.0), chance.within(4.0, 38.0), chance.within(0.35, 0.75));
            pieces.ellipse([255, 246, 206], (x, y), (r, r)).plain();
        }
    }
    let n_clouds = match setting {
        Setting::Day => 2 + chance.below(2),
        Setting::Dusk => 2 + chance.below(3),
        Setting::Night => chance.below(2),
        Setting::Snow => 1 + chance.below(2),
    };
    for _ in 0..n_clouds {
        let (x, y, r) =
            (chance.within(4.0, 60.0), chance.within(7.0, 30.0), chance.within(2.2, 4.0));
        if setting == Setting::Dusk {
            pieces.ellipse(tones.cloud, (x, y), (r * 3.6, r * 0.42)).plain();
            pieces.ellipse(tones.cloud, (x + r, y + r * 0.8), (r * 2.4, r * 0.3)).plain();
        } else {
            pieces.fill(tones.cloud, |path| cloud(path, (x, y), r)).plain();
        }
    }
    if matches!(setting, Setting::Day | Setting::Dusk) {
        for _ in 0..chance.below(4) {
            let (x, y, w) =
                (chance.within(6.0, 58.0), chance.within(6.0, 26.0), chance.within(1.2, 2.0));
            pieces.line([70, 60, 80], 0.55, |path| {
                path.move_to(x - w, y - w * 0.5);
                path.quad_to(x - w * 0.4, y - w * 0.7, x, y);
                path.quad_to(x + w * 0.4, y - w * 0.7, x + w, y - w * 0.5);
            });
        }
    }
}

fn cloud(path: &mut PathBuilder, (x, y): (f32, f32), r: f32) {
    path.push_circle(x, y - r * 0.3, r);
    path.push_circle(x - r * 1.2, y + r * 0.1, r * 0.62);
    path.push_circle(x + r * 1.2, y + r * 0.1, r * 0.7);
    path.push_circle(x + r * 0.4, y + r * 0.2, r * 0.7);
}

fn land(horizon: f32, tones: &BackdropTones, chance: &mut Chance, pieces: &mut Pieces) {
    let (lift, shift) = (chance.within(3.0, 8.0), chance.within(-10.0, 10.0));
    pieces.fill(tones.far, |path| {
        path.move_to(-2.0, 66.0);
        path.line_to(-2.0, horizon - lift * 0.3);
        path.quad_to(14.0 + shift, horizon - lift * 1.5, 32.0 + shift, horizon);
        path.quad_to(50.0 + shift, horizon - lift, 66.0, horizon - lift * 0.4);
        path.line_to(66.0, 66.0);
        path.close();
    });
    let (left, right) = (chance.within(1.0, 5.0), chance.within(1.0, 5.0));
    pieces.fill(tones.near, |path| {
        path.move_to(-2.0, 66.0);
        path.line_to(-2.0, horizon + left);
        path.quad_to(
            32.0,
            horizon + (left + right) * 0.5 - 3.0 + shift * 0.2,
            66.0,
            horizon + right,
        );
        path.line_to(66.0, 66.0);
        path.close();
    });
}

fn sea(horizon: f32, tones: &BackdropTones, chance: &mut Chance, pieces: &mut Pieces) {
    let (x, w) = (chance.within(6.0, 58.0), chance.within(8.0, 16.0));
    pieces.fill(tones.far, |path| {
        path.move_to(x - w, horizon + 0.5);
        path.quad_to(x, horizon - w * 0.45, x + w, horizon + 0.5);
        path.close();
    });
    pieces.fill(tones.water, |path| {
        path.move_to(-2.0, horizon);
        path.line_to(66.0, horizon);
        path.line_to(66.0, 66.0);
        path.line_to(-2.0, 66.0);
        path.close();
    });
    for _ in 0..6 {
        let (x, y, w) =
            (chance.within(4.0, 60.0), chance.within(horizon + 2.0, 61.0), chance.within(2.0, 4.5));
        pieces.line(mix(tones.water, tones.cloud, 0.45), 0.7, |path| {
            path.move_to(x - w, y);
            path.line_to(x + w, y);
        });
    }
}

fn waves(scene: &Scene, tones: &BackdropTones, chance: &mut Chance, pieces: &mut Pieces) {
    let level = super::paint::waterline(scene);
    let phase = chance.within(0.0, 6.0);
    let crest = mix(tones.water, tones.cloud, 0.35);
    for (row, color) in [(0.0, crest), (3.4, mix(tones.water, tones.mark, 0.25))] {
        pieces.fill(color, |path| {
            let y = level + row;
            let mut x = -8.0 + phase * if row > 0.0 { 1.0 } else { 0.4 };
            path.move_to(x, 66.0);
            path.line_to(x, y);
            while x < 66.0 {
                path.quad_to(x + 1.8, y - 1.9, x + 3.6, y);
                path.quad_to(x + 5.4, y + 1.5, x + 7.2, y);
                x += 7.2;
            }
            path.line_to(x, 66.0);
            path.close();
        });
    }
}

fn tufts(scene: &Scene, tones: &BackdropTones, chance: &mut Chance, pieces: &mut Pieces) {
    if scene.factors.subject == Subject::Lighthouse {
        return;
    }
    for _ in 0..3 + chance.below(3) {
        let (x, y, r) =
            (chance.within(4.0, 60.0), chance.within(57.0, 61.0), chance.within(0.9, 1.8));
        pieces.ellipse(tones.mark, (x, y), (r * 1.6, r * 0.7)).plain();
    }
}

fn flakes(chance: &mut Chance, pieces: &mut Pieces) {
    for _ in 0..18 + chance.below(10) {
        let (x, y, r) =
            (chance.within(3.0, 61.0), chance.within(3.0, 60.0), chance.within(0.55, 1.0));
        pieces.ellipse([255, 255, 255], (x, y), (r, r)).veil(0.92);
    }
}

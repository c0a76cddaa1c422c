//! `populate generate`: pictures of any base, with any adapters at any dose, from noise or from a
//! picture.

mod animation;
mod desk;
mod init_image;
mod model;
mod order;
mod record;
mod start;
mod trajectory;

use std::sync::atomic::Ordering;

use image::RgbImage;
use models::Tensor;

use super::{Job, Outcome};
use crate::args::GenerateArguments;
use crate::drawing::{Drawing, Method, Start, draw};
use crate::environment;
use crate::error::JobError;
use crate::progress::Tick;
use crate::stage;
use desk::{Desk, Plan, Texts};
use model::Model;
use order::Order;
use record::Record;
use start::Starts;
use trajectory::Recorder;

/// Draws all prompts with all seeds and writes what is finished, also after a request to stop.
pub(crate) fn execute(arguments: &GenerateArguments, job: &Job<'_>) -> Result<Outcome, JobError> {
    let order = Order::of(arguments)?;
    let device = job.device()?;
    let model = Model::open(arguments, &device)?;
    stage::warn_of_precision(&model.base, job.terminal);
    model.check_prompts(&order, &arguments.pictures.negative)?;
    let method = model.method(arguments, &order)?;
    let sampler = model.sampler(&method)?;
    let first = order.first_step(&sampler);
    let Starts { seeds, each: starts, seeding } =
        Starts::of(arguments, &order, &model, &method, &sampler)?;
    order.check_sheet(seeds.len(), method.sizes.target)?;
    let record = Record::new(arguments, &order, &model, method, seeding);
    let n_pictures = order.prompts.len() * starts.len();
    let plan = Plan {
        n_steps: (n_pictures * (sampler.len() - first)) as u64,
        texts: if arguments.output.private { Texts::Private } else { Texts::Written },
    };
    let mut desk = Desk::new(job, &order, &record, &seeds, plan);
    if order.trajectory.is_some() {
        desk.record(Recorder::new(sampler, first, arguments.output.frames as usize));
    }
    let work = Work { arguments, job, order: &order, model: &model, method, starts: &starts };
    let ended = work.finish(&mut desk);
    desk.leave();
    ended
}

/// All that the drawing reads.
struct Work<'a> {
    arguments: &'a GenerateArguments,
    job: &'a Job<'a>,
    order: &'a Order,
    model: &'a Model,
    method: Method,
    starts: &'a [Start],
}

impl Work<'_> {
    /// Draws, and lays out what is finished.
    fn finish(&self, desk: &mut Desk<'_>) -> Result<Outcome, JobError> {
        self.draw(desk)?;
        desk.lay_out()?;
        if desk.is_complete() && self.trajectory(desk)? {
            return Ok(Outcome::Done);
        }
        Ok(Outcome::Requeue { go_on: environment::own_command() })
    }

    fn draw(&self, desk: &mut Desk<'_>) -> Result<(), JobError> {
        let stop = self.job.stop.flag();
        for prompt in &self.order.prompts {
            let negative = &self.arguments.pictures.negative;
            let drawing = Drawing { prompt, negative, method: self.method };
            draw(&self.model.base, &drawing, self.starts, stop, desk)?;
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(())
    }

    /// Writes the trajectory of the first picture, if it is asked for; whether that is done.
    fn trajectory(&self, desk: &mut Desk<'_>) -> Result<bool, JobError> {
        let (Some(to), Some(recorder)) = (&self.order.trajectory, desk.take_recorder()) else {
            return Ok(true);
        };
        let Some(start) = self.starts.first() else { return Ok(true) };
        let (base, stop) = (&self.model.base, self.job.stop.flag());
        let (mut done, total) = (0, recorder.n_decoded() as u64);
        let mut decode = |latents: Tensor<4>| -> Result<Option<RgbImage>, JobError> {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let picture = self.method.pictures_from_latents(base, &latents)?.pop();
            done += 1;
            desk.tick(&Tick { phase: "trajectory", unit: "frames", done, total, figures: &[] });
            Ok(picture)
        };
        let developed = recorder.develop(base, start, &mut decode)?;
        match developed {
            Some(trajectory) => desk.write_trajectory(&trajectory, to).map(|()| true),
            None => Ok(false),
        }
    }
}

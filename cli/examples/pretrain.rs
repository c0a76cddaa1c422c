//! The `populate` program.

use std::io::Write as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let device = if args.iter().any(|a| a == "cuda") { models::Device::cuda(0) } else { models::Device::flex() };
    let recipes::Loaded::Pretrain(recipe) = recipes::load(std::path::Path::new(&args[2]), &args[3..].iter().filter(|a| a.contains('=')).cloned().collect::<Vec<_>>()).expect("recipe") else { panic!() };
    let stop = std::sync::atomic::AtomicBool::new(false);
    let start = std::time::Instant::now();
    let mut sink = |p: &trainer::pretrain::Progress| {
        if p.step % 50 == 0 || p.step < 4 {
            let _ = writeln!(std::io::stderr(), "{} {:>6}/{} loss {:.5} norm {:.3} lr {:.2e} {:.1}s", recipe.name, p.step, p.total, p.loss, p.grad_norm, p.learning_rate, start.elapsed().as_secs_f64());
        }
    };
    let mut watch = checkpoints::Watch { stop: &stop, sink: &mut sink };
    let run = std::path::PathBuf::from("runs").join(&recipe.name);
    std::fs::create_dir_all(&run).unwrap();
    let out = trainer::pretrain::pretrain(&recipe, &run, &device, &mut watch);
    println!("{out:?} {:.1}s", start.elapsed().as_secs_f64());
}

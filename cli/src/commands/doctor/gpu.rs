//! The card, what compiles its kernels, and the energy counters.

use super::Check;
use crate::commands::Job;
use crate::{device, environment, sensors};

/// Driver, compiler and a first kernel.
pub(super) fn checks(job: &Job<'_>) -> Vec<Check> {
    let mut checks = Vec::new();
    match sensors::driver() {
        Ok((version, cards)) => {
            checks.push(Check::good("gpu", format!("driver {version}: {}", cards.join(", "))));
        }
        Err(_) => {
            checks.push(Check::good("gpu", "no NVIDIA driver is found; the processor is used"));
        }
    }
    match device::n_cuda_devices() {
        None => checks.push(Check::good("gpu", "this build has no CUDA")),
        Some(0) => checks.push(Check::warn(
            "gpu",
            "this build has CUDA, but finds no card",
            "install the driver, or make the card visible in the container",
        )),
        Some(_) => checks.extend(compiler(job)),
    }
    checks
}

fn compiler(job: &Job<'_>) -> Vec<Check> {
    let root = environment::cuda_root();
    if let Err(error) = device::check_compiler() {
        return vec![Check::fail("gpu", error.to_string(), error.hint())];
    }
    let library = device::find_nvrtc(root.as_deref());
    let library = library.map(|path| path.display().to_string()).unwrap_or_default();
    let mut checks = vec![Check::good("gpu", format!("kernels are compiled by {library}"))];
    let choice = job.place.device;
    match device::choose(choice).map(|chosen| first_kernel(&chosen.device)) {
        Ok(Ok(())) => checks.push(Check::good("gpu", "a 4×4 matrix product is right")),
        Ok(Err(reason)) => {
            let fix =
                "compare the versions of driver and toolkit; the build needs the NVRTC generator";
            checks.push(Check::fail("gpu", format!("the first kernel failed: {reason}"), fix));
        }
        Err(error) => checks.push(Check::fail("gpu", error.to_string(), error.hint())),
    }
    checks
}

/// The only proof that kernels compile and run: the product of two small matrices.
fn first_kernel(device: &models::Device) -> Result<(), String> {
    let rows: Vec<f32> = (0_u8..16).map(f32::from).collect();
    let tensor = models::base::tensor_from_host(rows, [4, 4], device);
    let product = models::base::host_values(tensor.clone().matmul(tensor));
    let product = product.map_err(|error| error.to_string())?;
    // Row 0 of the square of [[0, 1, 2, 3], [4, …], …].
    let expected = [56.0, 62.0, 68.0, 74.0];
    if product.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 0.5) {
        Ok(())
    } else {
        Err(format!("expected {expected:?}, found {:?}", &product[..4]))
    }
}

/// Counters of energy; without them energy is null, which is no failure.
pub(super) fn sensors() -> Vec<Check> {
    let mut checks = Vec::new();
    if device::n_cuda_devices().is_some_and(|n| n > 0) {
        checks.push(match sensors::gpu(0) {
            Ok(source) => Check::good("sensors", source.label()),
            Err(error) => {
                Check::warn("sensors", format!("GPU energy is {error}"), "energy will be null")
            }
        });
    }
    checks.push(match sensors::cpu() {
        Ok(sources) => {
            let labels: Vec<&str> = sources.iter().map(|source| source.label()).collect();
            Check::good("sensors", labels.join(", "))
        }
        Err(error) => Check::warn(
            "sensors",
            format!("processor energy is {error}"),
            "energy of the processor will be null; the counters of /sys/class/powercap are for root",
        ),
    });
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_kernel_is_right_on_the_processor() {
        assert_eq!(first_kernel(&models::Device::flex()), Ok(()));
    }
}

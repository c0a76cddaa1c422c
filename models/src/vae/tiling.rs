//! Decoding in overlapping tiles, so that memory does not grow with the picture.

use burn::tensor::Tensor;

use super::AutoencoderKL;
use crate::base::tensor_from_host;

/// Least side of a tile in latents, and what its side is a multiple of: a quarter overlaps.
const PARTS: usize = 4;

/// How a picture is cut into tiles, a quarter of which overlaps with the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// Side of a tile in pixels, at least that of four latents; rounded down to a multiple of it.
    pub tile_px: usize,
}

/// A tiling in the measures of one VAE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grid {
    /// Side of a tile in latents.
    tile: usize,
    /// Latents from one tile to the next.
    step: usize,
    /// Pixels over which a tile fades into the next.
    blend_px: usize,
    /// Pixels that are kept of a tile.
    kept_px: usize,
}

impl Grid {
    fn new(tiling: Tiling, factor: usize) -> Self {
        let tile = (tiling.tile_px / factor / PARTS * PARTS).max(PARTS);
        let overlap = tile / PARTS;
        Self {
            tile,
            step: tile - overlap,
            blend_px: overlap * factor,
            kept_px: (tile - overlap) * factor,
        }
    }
}

impl AutoencoderKL {
    /// As [`AutoencoderKL::pixels_from_latents`], one picture at a time and one tile of it at a time:
    /// memory is bounded by the activations of one tile. A picture no larger than a tile is decoded
    /// whole. Tiles differ a little from the whole, since group norms and the attention of the
    /// middle see one tile only; neighbours fade into each other.
    ///
    /// Source: diffusers `AutoencoderKL.tiled_decode` with `use_slicing`, proved by the golden case
    /// `vae_tiled`.
    pub fn pixels_from_latents_tiled(&self, latents: Tensor<4>, tiling: Tiling) -> Tensor<4> {
        let unscaled = latents.div_scalar(self.config.scaling_factor);
        let grid = Grid::new(tiling, self.config.factor());
        let n_pictures = unscaled.dims()[0];
        let picture = |row| self.picture_in_tiles(&unscaled.clone().narrow(0, row, 1), grid);
        Tensor::cat((0..n_pictures).map(picture).collect(), 0)
    }

    fn picture_in_tiles(&self, unscaled: &Tensor<4>, grid: Grid) -> Tensor<4> {
        let [_, _, height, width] = unscaled.dims();
        if height <= grid.tile && width <= grid.tile {
            return self.pixels_from_unscaled(unscaled.clone());
        }
        let mut rows = Vec::new();
        // The lower edges of the tiles of the row above, as they are shown.
        let mut above: Vec<Tensor<4>> = Vec::new();
        for top in (0..height).step_by(grid.step) {
            let band = unscaled.clone().narrow(2, top, grid.tile.min(height - top));
            let mut row = Vec::new();
            let mut edges = Vec::new();
            let mut left: Option<Tensor<4>> = None;
            for (column, start) in (0..width).step_by(grid.step).enumerate() {
                let part = band.clone().narrow(3, start, grid.tile.min(width - start));
                let mut tile = self.pixels_from_unscaled(part);
                if let Some(edge) = above.get(column) {
                    tile = faded(edge, tile, 2);
                }
                if let Some(edge) = &left {
                    tile = faded(edge, tile, 3);
                }
                edges.push(last(&tile, 2, grid.blend_px));
                left = Some(last(&tile, 3, grid.blend_px));
                row.push(first(first(tile, 2, grid.kept_px), 3, grid.kept_px));
            }
            rows.push(Tensor::cat(row, 3));
            above = edges;
        }
        Tensor::cat(rows, 2)
    }
}

/// At most the first `n` pixels along an axis.
fn first(tile: Tensor<4>, axis: usize, n: usize) -> Tensor<4> {
    let n = n.min(tile.dims()[axis]);
    tile.narrow(axis, 0, n)
}

/// At most the last `n` pixels along an axis.
fn last(tile: &Tensor<4>, axis: usize, n: usize) -> Tensor<4> {
    let side = tile.dims()[axis];
    let n = n.min(side);
    tile.clone().narrow(axis, side - n, n)
}

/// `tile` with its first pixels along an axis fading in over `edge`, the last pixels of its
/// neighbour: the i-th of n pixels has i/n of the tile. A tile shorter than the edge fades in over
/// the last pixels of it.
fn faded(edge: &Tensor<4>, tile: Tensor<4>, axis: usize) -> Tensor<4> {
    let side = tile.dims()[axis];
    let n = edge.dims()[axis].min(side);
    let mut shape = [1; 4];
    shape[axis] = n;
    let share = |of: fn(f64) -> f64| {
        let values = (0..n).map(|index| of(index as f64 / n as f64) as f32).collect();
        tensor_from_host(values, shape, &tile.device())
    };
    let (shares, rest) = (share(|share| share), share(|share| 1.0 - share));
    let mixed = last(edge, axis, n) * rest + first(tile.clone(), axis, n) * shares;
    if n == side {
        return mixed;
    }
    Tensor::cat(vec![mixed, tile.narrow(axis, n, side - n)], axis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::host_values;
    use crate::parity::{Case, autoencoder};

    fn case() -> Case {
        Case::open("vae_tiled", "case.safetensors")
    }

    fn scaled(case: &Case, name: &str) -> Tensor<4> {
        case.tensor::<4>(name).mul_scalar(autoencoder().config().scaling_factor)
    }

    #[test]
    fn tiles_are_those_of_diffusers() {
        let (vae, case) = (autoencoder(), case());
        let tiling = Tiling { tile_px: case.scalar("tile_px") as usize };
        for (latents, decoded) in [("latents", "decoded"), ("low.latents", "low.decoded")] {
            let pixels = vae.pixels_from_latents_tiled(scaled(&case, latents), tiling);
            case.check(decoded, pixels);
        }
    }

    #[test]
    fn a_picture_that_fits_into_a_tile_is_decoded_whole() {
        let (vae, case) = (autoencoder(), case());
        let latents = scaled(&case, "latents");
        let whole = vae.pixels_from_latents(latents.clone().narrow(0, 1, 1));
        let tiled = vae.pixels_from_latents_tiled(latents, Tiling { tile_px: 64 });
        let whole = host_values(whole).unwrap();
        assert_eq!(host_values(tiled.narrow(0, 1, 1)).unwrap(), whole);
    }

    #[test]
    fn a_grid_covers_the_picture_whatever_side_is_asked_for() {
        let grid = Grid { tile: 64, step: 48, blend_px: 128, kept_px: 384 };
        assert_eq!(Grid::new(Tiling { tile_px: 512 }, 8), grid);
        assert_eq!(Grid::new(Tiling { tile_px: 527 }, 8), grid);
        assert_eq!(Grid::new(Tiling { tile_px: 0 }, 8).tile, 4);
        let (vae, case) = (autoencoder(), case());
        let latents = scaled(&case, "latents");
        let [_, _, height, width] = latents.dims();
        for tile_px in [0, 16, 33, 40] {
            let pixels = vae.pixels_from_latents_tiled(latents.clone(), Tiling { tile_px });
            assert_eq!(pixels.dims(), [2, 3, 4 * height, 4 * width]);
        }
    }
}

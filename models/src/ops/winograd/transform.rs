//! The three transforms of F(4×4, 3×3), on several channels at once.

use super::super::element::Element;
use super::super::lanes::LANES;
use super::{SIDE, TILE};

/// One value of each of several channels.
#[derive(Clone, Copy)]
pub(super) struct Vector<T>([T; LANES]);

impl<T: Element> Vector<T> {
    pub(super) const ZERO: Self = Self([T::ZERO; LANES]);

    /// The first of `values`, zeros where there are too few.
    #[inline(always)]
    pub(super) fn first(values: &[T]) -> Self {
        let mut vector = Self::ZERO;
        if let Some(values) = values.first_chunk() {
            vector.0 = *values;
        } else {
            for (lane, &value) in vector.0.iter_mut().zip(values) {
                *lane = value;
            }
        }
        vector
    }

    #[inline(always)]
    pub(super) fn get(&self, lane: usize) -> T {
        self.0[lane]
    }

    #[inline(always)]
    pub(super) fn set(&mut self, lane: usize, value: T) {
        self.0[lane] = value;
    }

    /// Writes the vector to the beginning of `values`.
    #[inline(always)]
    pub(super) fn put(&self, values: &mut [T]) {
        values[..LANES].copy_from_slice(&self.0);
    }

    #[inline(always)]
    fn times(mut self, factor: T) -> Self {
        for value in &mut self.0 {
            *value *= factor;
        }
        self
    }
}

impl<T: Element> core::ops::Add for Vector<T> {
    type Output = Self;

    #[inline(always)]
    fn add(mut self, other: Self) -> Self {
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            *a += *b;
        }
        self
    }
}

impl<T: Element> core::ops::Sub for Vector<T> {
    type Output = Self;

    #[inline(always)]
    fn sub(mut self, other: Self) -> Self {
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            *a = *a - *b;
        }
        self
    }
}

/// A transform of the columns of a square, then of its rows. Written into place, because arrays of
/// arrays that are returned would be copied.
#[inline(always)]
pub(super) fn both_ways<T: Element, const N: usize, const M: usize>(
    square: &[[Vector<T>; N]; N],
    result: &mut [[Vector<T>; M]; M],
    transform: impl Fn(&[Vector<T>; N], &mut [Vector<T>; M]),
) {
    let mut half = [[Vector::ZERO; N]; M];
    let mut line = [Vector::ZERO; N];
    let mut transformed = [Vector::ZERO; M];
    for column in 0..N {
        for (value, row) in line.iter_mut().zip(square) {
            *value = row[column];
        }
        transform(&line, &mut transformed);
        for (row, value) in half.iter_mut().zip(&transformed) {
            row[column] = *value;
        }
    }
    for (row, result) in half.iter().zip(result) {
        transform(row, result);
    }
}

/// Bᵀd of the paper, without its products with 0.
#[inline(always)]
pub(super) fn from_pixels<T: Element>(d: &[Vector<T>; SIDE], result: &mut [Vector<T>; SIDE]) {
    let [two, four, five] = [2.0, 4.0, 5.0].map(T::of);
    let (even, odd) = (d[4] - d[2].times(four), d[3] - d[1].times(four));
    let (near, far) = (d[4] - d[2], (d[3] - d[1]).times(two));
    result[0] = d[0].times(four) - d[2].times(five) + d[4];
    result[1] = even + odd;
    result[2] = even - odd;
    result[3] = near + far;
    result[4] = near - far;
    result[5] = d[1].times(four) - d[3].times(five) + d[5];
}

/// Gg of the paper.
#[inline(always)]
pub(super) fn from_window<T: Element>(g: &[Vector<T>; 3], result: &mut [Vector<T>; SIDE]) {
    let [quarter, sixth, twelfth, small] = [0.25, 1.0 / 6.0, 1.0 / 12.0, 1.0 / 24.0].map(T::of);
    let (outer, middle) = ((g[0] + g[2]).times(sixth), g[1].times(sixth));
    let (wide, narrow) = (g[0].times(small) + g[2].times(sixth), g[1].times(twelfth));
    result[0] = g[0].times(quarter);
    result[1] = Vector::ZERO - outer - middle;
    result[2] = middle - outer;
    result[3] = wide + narrow;
    result[4] = wide - narrow;
    result[5] = g[2];
}

/// Aᵀm of the paper.
#[inline(always)]
pub(super) fn from_products<T: Element>(m: &[Vector<T>; SIDE], result: &mut [Vector<T>; TILE]) {
    let [two, four, eight] = [2.0, 4.0, 8.0].map(T::of);
    let (sum, difference) = (m[1] + m[2], m[1] - m[2]);
    let (far_sum, far) = (m[3] + m[4], m[3] - m[4]);
    result[0] = m[0] + sum + far_sum;
    result[1] = difference + far.times(two);
    result[2] = sum + far_sum.times(four);
    result[3] = difference + far.times(eight) + m[5];
}

//! Runs a loop with the widest vector instructions of the machine.
//!
//! A portable binary is compiled for the oldest processor of its kind. Here the same Rust function
//! is compiled several times and the fastest version that the processor understands is called. The
//! loops contain no fused multiply-add, so that every version yields the same bits.

/// What the processor and the operating system support.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// All that [`vectorized!`](vectorized) enables of AVX-512.
    Avx512,
    /// AVX2.
    Avx2,
    /// What every processor of this kind has.
    Baseline,
}

/// The level of this machine.
pub(crate) fn level() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
        {
            return Level::Avx512;
        }
        if is_x86_feature_detected!("avx2") {
            return Level::Avx2;
        }
    }
    Level::Baseline
}

/// Defines functions that run compiled for the vector unit of the machine they find themselves on.
///
/// What they call must be `#[inline(always)]` and small closures must stay small: what is not
/// inlined keeps the baseline instructions. That is why this is no function over a closure: the
/// compiler leaves large closures where they are. They must not hand work to other threads.
macro_rules! vectorized {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident<$t:ident: Element>($($arg:ident: $type:ty),* $(,)?)
     $(-> $result:ty)? $body:block)+) => {$(
        $(#[$meta])*
        $vis fn $name<$t: Element>($($arg: $type),*) $(-> $result)? {
            #[inline(always)]
            fn work<$t: Element>($($arg: $type),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2")]
                fn avx512<$t: Element>($($arg: $type),*) $(-> $result)? {
                    work($($arg),*)
                }
                #[target_feature(enable = "avx2")]
                fn avx2<$t: Element>($($arg: $type),*) $(-> $result)? {
                    work($($arg),*)
                }
                match $crate::ops::simd::level() {
                    $crate::ops::simd::Level::Avx512 => {
                        // SAFETY: the processor and the operating system support every feature named
                        // at `avx512`, as the level says.
                        #[expect(unsafe_code, reason = "a function compiled for more instructions than the baseline")]
                        unsafe { avx512($($arg),*) }
                    }
                    $crate::ops::simd::Level::Avx2 => {
                        // SAFETY: as above, for `avx2`.
                        #[expect(unsafe_code, reason = "a function compiled for more instructions than the baseline")]
                        unsafe { avx2($($arg),*) }
                    }
                    $crate::ops::simd::Level::Baseline => work($($arg),*),
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            work($($arg),*)
        }
    )+};
}
pub(crate) use vectorized;

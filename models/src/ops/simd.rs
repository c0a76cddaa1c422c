//! Runs a loop with the widest vector instructions of the machine.
//!
//! A portable binary is compiled for the oldest processor of its kind. Here the same Rust loop is
//! compiled several times and the fastest version that the processor understands is called. The
//! loops contain no fused multiply-add, so that every version yields the same bits.

/// Runs `work`, compiled for the vector unit of this machine.
///
/// The closure and all that it calls must be `#[inline(always)]`, otherwise they keep the baseline
/// code. It must not hand work to other threads: they would not run the compiled-for version.
#[inline(always)]
pub(crate) fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        x86::vectorized(work)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        work()
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #[inline(always)]
    #[expect(
        unsafe_code,
        reason = "a function compiled for more instructions than the baseline can only be called so"
    )]
    pub(super) fn vectorized<R>(work: impl FnOnce() -> R) -> R {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw")
        {
            // SAFETY: the processor and the operating system support every feature named at
            // `avx512`, as the line above found out.
            unsafe { avx512(work) }
        } else if is_x86_feature_detected!("avx2") {
            // SAFETY: as above, for `avx2`.
            unsafe { avx2(work) }
        } else {
            work()
        }
    }

    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2")]
    fn avx512<R>(work: impl FnOnce() -> R) -> R {
        work()
    }

    #[target_feature(enable = "avx2")]
    fn avx2<R>(work: impl FnOnce() -> R) -> R {
        work()
    }
}

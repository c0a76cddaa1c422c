//! Owns how numbers are written: decimal mark, minus sign, thin spaces and intervals of each language.

use super::words::{Language, NARROW, Words};
use statistics::interval::Estimate;

impl Words {
    /// `value` with `digits` decimals and a true minus sign; −0 is 0.
    pub(crate) fn number(&self, value: f64, digits: usize) -> String {
        self.written(&format!("{value:.digits$}"))
    }

    /// `value` in its shortest form: doses, limits.
    pub(crate) fn exact(&self, value: f64) -> String {
        self.written(&value.to_string())
    }

    /// A small `value` as `1.0×10⁻⁴`.
    pub(crate) fn power_of_ten(&self, value: f64) -> String {
        let text = format!("{value:.1e}");
        let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
        let raised = |c: char| match c {
            '-' => '⁻',
            '0' => '⁰',
            '1' => '¹',
            '2' => '²',
            '3' => '³',
            '4' => '⁴',
            '5' => '⁵',
            '6' => '⁶',
            '7' => '⁷',
            '8' => '⁸',
            _ => '⁹',
        };
        let power: String = power.chars().map(raised).collect();
        format!("{}×10{power}", self.written(digits))
    }

    /// The same as [`Self::number`] with a plus sign where it is positive.
    pub(crate) fn signed(&self, value: f64, digits: usize) -> String {
        let text = self.number(value, digits);
        if value > 0.0 && !is_zero(&text) { format!("+{text}") } else { text }
    }

    /// `[low, high]`, both times `scale`.
    pub(crate) fn interval(&self, ci: [f64; 2], scale: f64, digits: usize) -> String {
        let [low, high] = ci.map(|end| self.number(end * scale, digits));
        match self.language() {
            Language::English => format!("[{low}, {high}]"),
            // A comma is the decimal mark.
            Language::French => format!("[{low}{NARROW}; {high}]"),
        }
    }

    /// An estimate with its interval, times `scale`.
    pub(crate) fn estimate(&self, estimate: &Estimate, scale: f64, digits: usize) -> String {
        let value = self.number(estimate.value * scale, digits);
        match estimate.ci {
            Some(ci) => format!("{value} {}", self.interval(ci, scale, digits)),
            None => value,
        }
    }

    /// `share` of 1 in per cent, with its sign.
    pub(crate) fn percent(&self, share: f64, digits: usize) -> String {
        format!("{}{NARROW}%", self.number(100.0 * share, digits))
    }

    /// `n` with thin spaces between thousands.
    #[expect(clippy::unused_self, reason = "figures are written by the words of a language")]
    pub(crate) fn thousands(&self, n: u64) -> String {
        let digits = n.to_string();
        let mut text = String::new();
        for (i, digit) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                text.push(NARROW);
            }
            text.push(digit);
        }
        text
    }

    /// Seconds as `1 h 02 min`, `3 min 20 s` or `12 s`.
    #[expect(clippy::unused_self, reason = "figures are written by the words of a language")]
    pub(crate) fn duration(&self, seconds: f64) -> String {
        let whole = statistics::number::index(libm::round(seconds));
        let (hours, minutes, rest) = (whole / 3600, whole / 60 % 60, whole % 60);
        if hours > 0 {
            format!("{hours} h {minutes:02} min")
        } else if minutes > 0 {
            format!("{minutes} min {rest:02} s")
        } else {
            format!("{rest} s")
        }
    }

    /// Digits as a program writes them, with this language's marks.
    fn written(&self, digits: &str) -> String {
        let (sign, rest) = digits.strip_prefix('-').map_or(("", digits), |rest| ("−", rest));
        let sign = if is_zero(rest) { "" } else { sign };
        match self.language() {
            Language::English => format!("{sign}{rest}"),
            Language::French => format!("{sign}{}", rest.replace('.', ",")),
        }
    }
}

/// Whether a written number is 0.
fn is_zero(text: &str) -> bool {
    text.chars().all(|character| matches!(character, '0' | '.' | ','))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let words = Words::new(Language::English);
        assert_eq!(words.number(-2.14, 1), "−2.1");
        assert_eq!(words.number(-0.01, 1), "0.0");
        assert_eq!(words.signed(0.04, 1), "0.0");
        assert_eq!(words.signed(1.25, 1), "+1.2");
        assert_eq!(words.exact(-0.5), "−0.5");
        assert_eq!(words.power_of_ten(1.5e-4), "1.5×10⁻⁴");
        assert_eq!(words.interval([-0.033, -0.01], 100.0, 1), "[−3.3, −1.0]");
        assert_eq!(words.percent(0.866, 1), "86.6\u{202f}%");
        assert_eq!(words.thousands(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(words.thousands(12), "12");
        assert_eq!(words.duration(3725.2), "1 h 02 min");
        assert_eq!(words.duration(200.0), "3 min 20 s");
    }

    #[test]
    fn a_comma_is_the_decimal_mark_of_french() {
        let words = Words::new(Language::French);
        assert_eq!(words.number(-2.14, 1), "−2,1");
        assert_eq!(words.signed(0.04, 1), "0,0");
        assert_eq!(words.exact(0.25), "0,25");
        assert_eq!(words.interval([-0.033, -0.01], 100.0, 1), "[−3,3\u{202f}; −1,0]");
        let estimate = Estimate { value: 0.222, ci: Some([0.181, 0.279]), ci_kind: None };
        assert_eq!(words.estimate(&estimate, 100.0, 1), "22,2 [18,1\u{202f}; 27,9]");
    }
}

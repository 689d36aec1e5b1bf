//! CPUs as operators and the kernel write them: `2-5,8`.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

/// Numbers of CPUs, and CPUs in a list: what an affinity mask of ours can name.
const CPU_COUNT_MAX: usize = 8192;

/// CPUs, each once, in the order in which they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuList(Vec<usize>);

impl CpuList {
    /// None.
    pub const fn empty() -> CpuList {
        CpuList(Vec::new())
    }

    /// Their numbers.
    pub fn as_slice(&self) -> &[usize] {
        &self.0
    }
}

impl From<&[usize]> for CpuList {
    fn from(cpus: &[usize]) -> CpuList {
        CpuList(cpus.to_vec())
    }
}

impl FromStr for CpuList {
    type Err = ();

    fn from_str(text: &str) -> Result<CpuList, ()> {
        let number = |text: &str| text.trim().parse().ok().filter(|cpu| *cpu < CPU_COUNT_MAX).ok_or(());
        let mut seen = HashSet::new();
        let mut cpus = Vec::new();
        for item in text.split(',') {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(());
            }
            for cpu in first..=last {
                if !seen.insert(cpu) {
                    return Err(());
                }
                cpus.push(cpu);
            }
        }
        Ok(CpuList(cpus))
    }
}

impl fmt::Display for CpuList {
    /// As short as may be.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.0.chunk_by(|cpu, next| cpu + 1 == *next);
        for (index, run) in runs.enumerate() {
            f.write_str(if index > 0 { "," } else { "" })?;
            match run {
                [first, .., last] => write!(f, "{first}-{last}")?,
                [only] => write!(f, "{only}")?,
                [] => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (text, cpus, written) in [
            ("8", &[8][..], "8"),
            ("2-5,8", &[2, 3, 4, 5, 8], "2-5,8"),
            (" 9 , 1 - 1,3,4", &[9, 1, 3, 4], "9,1,3-4"),
            ("8191", &[8191], "8191"),
        ] {
            let list: CpuList = text.parse().unwrap();
            assert_eq!((list.as_slice(), list.to_string().as_str()), (cpus, written));
            assert_eq!(written.parse(), Ok(list));
        }
        assert_eq!(CpuList::empty().to_string(), "");
    }

    #[test]
    fn anything_else_is_none() {
        for text in [
            "",
            " ",
            "-",
            "1-",
            "-1",
            "5-2",
            "1-2-3",
            "1,,2",
            "1,",
            "2,1-3",
            "7,7",
            "8192",
            "0-4294967295",
            "0-18446744073709551615",
            "18446744073709551616",
            "all",
            "0x1",
            "1;2",
        ] {
            assert_eq!(text.parse::<CpuList>(), Err(()), "{text:?}");
        }
    }
}

//! Slurm's way of writing many host names: `node[001-003,7],gpu5`. Only the first one is ever needed.

/// The first host of a list; `None` if it is none.
pub(super) fn first(list: &str) -> Option<String> {
    let list = list.trim();
    // A comma in brackets parts numbers, one outside parts names.
    let mut depth = 0usize;
    let end = list.find(|character| {
        match character {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            ',' => return depth == 0,
            _ => {}
        }
        false
    });
    let mut rest = &list[..end.unwrap_or(list.len())];
    let mut name = String::new();
    while let Some((before, after)) = rest.split_once('[') {
        let (numbers, behind) = after.split_once(']')?;
        let lowest = numbers.split([',', '-']).next()?;
        if lowest.is_empty() || !lowest.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        name.push_str(before);
        name.push_str(lowest);
        rest = behind;
    }
    name.push_str(rest);
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (!name.is_empty() && name.bytes().all(known)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_host_is_found() {
        for (list, host) in [
            ("node7", Some("node7")),
            ("node[001-003,7],gpu5", Some("node001")),
            ("gpu5,node[1-2]", Some("gpu5")),
            ("rack[2-3]n[07,09]", Some("rack2n07")),
            ("n[12]-ib", Some("n12-ib")),
            ("", None),
            ("n[1-", None),
            ("n[]", None),
            ("n[a-b]", None),
            ("two words", None),
        ] {
            assert_eq!(first(list).as_deref(), host, "{list:?}");
        }
    }
}

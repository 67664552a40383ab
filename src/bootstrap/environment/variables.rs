//! How variables are read: as text, as numbers, and with errors that name them. The only place that looks at raw values.

use std::ffi::OsString;

use super::super::BootstrapError;

/// The environment, given as a function.
pub(super) struct Variables<'lookup>(&'lookup dyn Fn(&'static str) -> Option<OsString>);

impl<'lookup> Variables<'lookup> {
    pub(super) fn new(lookup: &'lookup dyn Fn(&'static str) -> Option<OsString>) -> Self {
        Self(lookup)
    }

    /// What a variable holds.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<String>, BootstrapError> {
        match (self.0)(name).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(value)) => Err(refuse(name, &value.to_string_lossy(), "it is not valid UTF-8")),
        }
    }

    /// As [`Self::text`], for what another launcher sets: an empty value says as little as none.
    pub(super) fn filled(&self, name: &'static str) -> Result<Option<String>, BootstrapError> {
        Ok(self.text(name)?.filter(|value| !value.is_empty()))
    }

    /// A number of another launcher's.
    pub(super) fn number(&self, name: &'static str) -> Result<Option<u32>, BootstrapError> {
        let value = self.filled(name)?;
        value
            .map(|value| number(name, &value, "a whole number from 0"))
            .transpose()
    }

    /// The first of these variables that holds something.
    pub(super) fn first(
        &self,
        names: &[&'static str],
    ) -> Result<Option<(&'static str, String)>, BootstrapError> {
        for name in names {
            if let Some(value) = self.filled(name)? {
                return Ok(Some((name, value)));
            }
        }
        Ok(None)
    }
}

pub(super) fn refuse(variable: &'static str, value: &str, expected: &str) -> BootstrapError {
    BootstrapError::Environment {
        variable,
        value: value.into(),
        expected: expected.into(),
    }
}

pub(super) fn incomplete(present: &'static str, missing: &'static str, hint: &'static str) -> BootstrapError {
    BootstrapError::EnvironmentIncomplete {
        present,
        missing,
        hint,
    }
}

pub(super) fn number(variable: &'static str, value: &str, expected: &str) -> Result<u32, BootstrapError> {
    // `u32::from_str` takes a leading plus, which no launcher writes.
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .then(|| value.parse().ok())
        .flatten()
        .ok_or_else(|| refuse(variable, value, &format!("it must be {expected}")))
}

pub(super) fn below(
    variable: &'static str,
    value: &str,
    limit: u32,
    expected: &str,
) -> Result<u32, BootstrapError> {
    match number(variable, value, expected)? {
        number if number < limit => Ok(number),
        _ => Err(refuse(variable, value, &format!("it must be {expected}"))),
    }
}

//! What an error says to a person, in one line.

use std::error::Error;
use std::io;

use tokio_tungstenite::tungstenite;

/// The error and its causes, without what only a debugger wants to know, such as "(os error 98)".
pub fn of(error: &anyhow::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = text(cause);
        // Some errors repeat their cause in their own words.
        if texts.last().is_none_or(|last| !last.ends_with(&text)) {
            texts.push(text);
        }
    }
    texts.join(": ")
}

fn text(error: &(dyn Error + 'static)) -> String {
    if let Some(tungstenite::Error::Io(error)) = error.downcast_ref() {
        return io_text(error);
    }
    match error.downcast_ref() {
        Some(error) => io_text(error),
        None => error.to_string(),
    }
}

/// What an error of the system says: its messages begin with a capital letter and end with a number.
pub fn io_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    let first = letters.next().into_iter().flat_map(char::to_lowercase);
    first.chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn numbers_and_repetitions_are_left_out() {
        let refused = || io::Error::from_raw_os_error(111);
        let error = Err::<(), _>(refused())
            .context("cannot connect")
            .expect_err("it is one");
        assert_eq!(of(&error), "cannot connect: connection refused");
        assert_eq!(
            of(&tungstenite::Error::Io(refused()).into()),
            "connection refused"
        );
        assert_eq!(of(&anyhow::anyhow!("no answer")), "no answer");
    }
}

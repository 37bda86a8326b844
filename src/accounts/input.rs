//! What a username, an email and a password may be.

use unicode_normalization::UnicodeNormalization;

use crate::{
    error::{Error, Result},
    validation::{Fields, StringRule, text},
};

const USERNAME: StringRule = text(150);
const EMAIL: StringRule = text(254);
/// What no account has is wrong, and not too long: longer than any name by far, and still bounded.
const LOGIN_NAME: StringRule = text(254);
/// Never trimmed: a space at the end is part of a password. Its bounds are in bytes and checked below.
pub(crate) const PASSWORD: StringRule = StringRule { min: 0, max: usize::MAX, blank: false, trim: false };
const PASSWORD_BYTES: std::ops::RangeInclusive<usize> = 8..=1024;

/// A refresh token, as a client sends it back.
pub(crate) const TOKEN: StringRule = text(512);

/// Body of every request about accounts, in bytes.
pub(crate) const BODY_BYTES: usize = 8 * 1024;

/// A new account's words; `None` where a field has a fault.
#[derive(Debug)]
pub(crate) struct NewAccount {
    /// In NFKC, as Django stores it.
    pub(crate) username: Option<String>,
    /// As it was given.
    pub(crate) email: Option<String>,
    /// As it was given.
    pub(crate) password: Option<String>,
}

/// Checks all three; the faults stay with the fields.
pub(crate) fn new_account(fields: &mut Fields) -> NewAccount {
    let username = fields.text("username", USERNAME).map(|username| normalized(&username));
    if username.as_ref().is_some_and(|username| username.chars().count() > USERNAME.max) {
        // one letter may become several
        fields.fault("username", "Ensure this field has no more than 150 characters.");
    }
    let email = fields.text("email", EMAIL);
    let password = fields.text("password", PASSWORD);
    if let Some(username) = &username
        && !username.chars().all(|letter| letter.is_alphanumeric() || "@.+-_".contains(letter))
    {
        let words = "Enter a valid username. This value may contain only letters, numbers, and @/./+/-/_ characters.";
        fields.fault("username", words);
    }
    if let Some(email) = &email
        && !is_email(email)
    {
        fields.fault("email", "Enter a valid email address.");
    }
    if let Some(password) = &password {
        password_faults(password, username.as_deref()).into_iter().for_each(|words| fields.fault("password", words));
    }
    let faultless = |name, value: Option<String>| value.filter(|_| !fields.has_fault(name));
    NewAccount {
        username: faultless("username", username),
        email: faultless("email", email),
        password: faultless("password", password),
    }
}

/// A new password for an account that exists.
pub(crate) fn new_password(password: &str, username: &str) -> Result<(), Vec<String>> {
    let faults = password_faults(password, Some(username));
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// What a login sends; wrong words are the login's business, not this one's.
pub(crate) fn credentials(mut fields: Fields) -> Result<(String, String)> {
    let username = fields.text("username", LOGIN_NAME).map(|username| normalized(&username));
    let password = fields.text("password", PASSWORD);
    fields.finish()?;
    username.zip(password).ok_or_else(|| Error::internal("a field without a value has a fault"))
}

fn normalized(username: &str) -> String {
    username.nfkc().collect()
}

/// As Django's `EmailValidator` judges, and letters of every script beside those of ASCII (RFC 6531).
fn is_email(text: &str) -> bool {
    text.rsplit_once('@').is_some_and(|(user, host)| is_mailbox(user) && is_host(host))
}

/// Words parted by dots, or anything in quotes.
fn is_mailbox(user: &str) -> bool {
    let plain = |letter: char| letter.is_alphanumeric() || "-!#$%&'*+/=?^_`{}|~".contains(letter);
    let quoted = |letter: char| letter.is_ascii_graphic() && !"\"\\".contains(letter);
    match user.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => inner.chars().all(quoted),
        None => user.split('.').all(|word| !word.is_empty() && word.chars().all(plain)),
    }
}

/// Two labels or more, an address in brackets, or this very host.
fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<std::net::IpAddr>().is_ok();
    }
    let label = |label: &str| {
        (1..=63).contains(&label.chars().count())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|letter| letter.is_alphanumeric() || letter == '-')
    };
    let top = |label: &str| label.chars().count() >= 2;
    host.eq_ignore_ascii_case("localhost")
        || host.rsplit_once('.').is_some_and(|(above, last)| above.split('.').chain([last]).all(label) && top(last))
}

fn password_faults(password: &str, username: Option<&str>) -> Vec<String> {
    let lower = password.to_lowercase();
    let mut faults = Vec::new();
    let mut fault = |is: bool, words: &str| {
        if is {
            faults.push(words.to_owned());
        }
    };
    fault(password.len() < *PASSWORD_BYTES.start(), "Ensure this field has at least 8 characters.");
    fault(password.len() > *PASSWORD_BYTES.end(), "Ensure this field has no more than 1024 characters.");
    fault(password.bytes().all(|byte| byte.is_ascii_digit()), "This password is entirely numeric.");
    fault([password, &lower].into_iter().any(passwords::analyzer::is_common_password), "This password is too common.");
    fault(
        username.is_some_and(|username| username.to_lowercase() == lower),
        "The password is too similar to the username.",
    );
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poor_passwords_are_told_why() {
        let of = |password: &str| password_faults(password, Some("Margaret.H"));
        assert_eq!(of("q-8z"), ["Ensure this field has at least 8 characters."]);
        assert_eq!(of("margaret.h"), ["The password is too similar to the username."]);
        assert_eq!(of("Password1"), ["This password is too common."]);
        assert_eq!(of("8675309867530"), ["This password is entirely numeric."]);
        assert_eq!(of(&"ä".repeat(513)), ["Ensure this field has no more than 1024 characters."]);
        assert!(of("securepassword").is_empty());
        assert!(of("päßword").is_empty(), "eight bytes and more");
    }

    #[test]
    fn emails_are_addresses_on_a_host() {
        let longest = format!("{}@example.com", "a".repeat(242));
        for good in [
            "user@example.com",
            "a.b+c@sub.example.org",
            "почта@пример.рф",
            "user@localhost",
            "a@[127.0.0.1]",
            "\"quoted@here\"@example.com",
            "o'neil@xn--e1afmkfd.xn--p1ai",
            &longest,
        ] {
            assert!(is_email(good), "{good}");
        }
        for bad in [
            "user",
            "user@",
            "@example.com",
            "user@host",
            "Ann <a@b.com>",
            "a b@c.com",
            "a@b.c",
            "a@b_c.com",
            "a..b@c.com",
            ".a@b.com",
            "a@-b.com",
            "a@b-.com",
            "a@b..com",
            "a@[127.0.0]",
            "\"a\"b\"@c.com",
            "a@b.com\n",
        ] {
            assert!(!is_email(bad), "{bad}");
        }
    }
}

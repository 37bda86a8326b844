//! What a username, an email and a password may be.

use unicode_normalization::UnicodeNormalization;

use crate::{
    error::{Error, Result},
    http::fields::{Fields, Text, text},
};

const USERNAME: Text = text(150);
const EMAIL: Text = text(254);
/// Never trimmed: a space at the end is part of a password. Its bounds are in bytes and checked below.
pub(super) const PASSWORD: Text = Text { min: 0, max: usize::MAX, blank: false, trim: false };
const PASSWORD_BYTES: std::ops::RangeInclusive<usize> = 8..=1024;

/// A refresh token, as a client sends it back.
pub(super) const TOKEN: Text = text(512);

/// Body of every request about accounts, in bytes.
pub const BODY_BYTES: usize = 8 * 1024;

/// A new account's words; `None` where a field has a fault.
#[derive(Debug)]
pub struct NewAccount {
    /// In NFKC, as Django stores it.
    pub username: Option<String>,
    /// As it was given.
    pub email: Option<String>,
    /// As it was given.
    pub password: Option<String>,
}

/// Checks all three; the faults stay with the fields.
pub fn new_account(fields: &mut Fields) -> NewAccount {
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
pub fn new_password(password: &str, username: &str) -> Result<(), Vec<String>> {
    let faults = password_faults(password, Some(username));
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// What a login sends; wrong words are the login's business, not this one's.
pub fn credentials(mut fields: Fields) -> Result<(String, String)> {
    let username = fields.text("username", EMAIL).map(|username| normalized(&username));
    let password = fields.text("password", PASSWORD);
    fields.finish()?;
    username.zip(password).ok_or_else(|| Error::internal("a field without a value has a fault"))
}

fn normalized(username: &str) -> String {
    username.nfkc().collect()
}

fn is_email(text: &str) -> bool {
    use email_address::{EmailAddress, Options};
    let options = Options::default().with_required_tld().without_domain_literal().without_display_text();
    EmailAddress::parse_with_options(text, options).is_ok()
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
        for good in ["user@example.com", "a.b+c@sub.example.org", "почта@пример.рф"] {
            assert!(is_email(good), "{good}");
        }
        for bad in ["user", "user@", "@example.com", "user@localhost", "Ann <a@b.com>", "a b@c.com", "a@[127.0.0.1]"] {
            assert!(!is_email(bad), "{bad}");
        }
    }
}

//! Validation rules for usernames, emails and passwords.

use unicode_normalization::UnicodeNormalization;

use crate::{
    error::{Error, Result},
    validation::{Fields, StringRule, text},
};

const USERNAME_RULE: StringRule = text(150);
const EMAIL_RULE: StringRule = text(254);
/// Longer than any username: at login, a username that no account can have is wrong rather than invalid.
const LOGIN_NAME_RULE: StringRule = text(254);
/// Not trimmed: spaces are part of a password. Its length is limited in bytes, by [`PASSWORD_BYTES`].
pub(crate) const PASSWORD_RULE: StringRule =
    StringRule { min_length: 0, max_length: usize::MAX, allow_blank: false, trim: false };
const PASSWORD_BYTES: std::ops::RangeInclusive<usize> = 8..=1024;

/// Of any length: a token that is too long is invalid, as any other that was not issued.
pub(crate) const REFRESH_TOKEN_RULE: StringRule = text(usize::MAX);

/// Size limit of the request bodies of all account routes.
pub(crate) const BODY_BYTES: usize = 8 * 1024;

/// The fields of a new account; `None` for a field with an error.
#[derive(Debug)]
pub(crate) struct NewAccount {
    /// In NFKC, as Django stores it.
    pub(crate) username: Option<String>,
    pub(crate) email: Option<String>,
    pub(crate) password: Option<String>,
}

/// Validates the fields of a new account; errors are added to `fields`.
pub(crate) fn validate_new_account(fields: &mut Fields) -> NewAccount {
    let username = fields.text("username", USERNAME_RULE).map(|username| normalize(&username));
    if username.as_ref().is_some_and(|username| username.chars().count() > USERNAME_RULE.max_length) {
        // NFKC may turn one character into several
        fields.add_error("username", "Ensure this field has no more than 150 characters.");
    }
    let email = fields.text("email", EMAIL_RULE);
    let password = fields.text("password", PASSWORD_RULE);
    if let Some(username) = &username
        && !username.chars().all(|letter| letter.is_alphanumeric() || "@.+-_".contains(letter))
    {
        let message = "Enter a valid username. This value may contain only letters, numbers, and @/./+/-/_ characters.";
        fields.add_error("username", message);
    }
    if let Some(email) = &email
        && !is_email(email)
    {
        fields.add_error("email", "Enter a valid email address.");
    }
    if let Some(password) = &password {
        let errors = password_errors(password, username.as_deref());
        errors.into_iter().for_each(|message| fields.add_error("password", message));
    }
    let valid = |name, value: Option<String>| value.filter(|_| !fields.has_error(name));
    NewAccount {
        username: valid("username", username),
        email: valid("email", email),
        password: valid("password", password),
    }
}

/// Validates a new password for an existing account.
pub(crate) fn validate_new_password(password: &str, username: &str) -> Result<(), Vec<String>> {
    let errors = password_errors(password, Some(username));
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Returns the username and password of a login. Only their presence and length are validated.
pub(crate) fn validate_credentials(mut fields: Fields) -> Result<(String, String)> {
    let username = fields.text("username", LOGIN_NAME_RULE).map(|username| normalize(&username));
    let password = fields.text("password", PASSWORD_RULE);
    fields.finish()?;
    username.zip(password).ok_or_else(|| Error::internal("a missing field passed validation"))
}

fn normalize(username: &str) -> String {
    username.nfkc().collect()
}

/// The rules of Django's `EmailValidator`, extended to letters outside ASCII (RFC 6531).
fn is_email(text: &str) -> bool {
    text.rsplit_once('@').is_some_and(|(user, host)| is_mailbox(user) && is_host(host))
}

/// Atoms separated by dots, or a quoted string.
fn is_mailbox(user: &str) -> bool {
    let is_atom_char = |letter: char| letter.is_alphanumeric() || "-!#$%&'*+/=?^_`{}|~".contains(letter);
    let is_quoted_char = |letter: char| letter.is_ascii_graphic() && !"\"\\".contains(letter);
    match user.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => inner.chars().all(is_quoted_char),
        None => user.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atom_char)),
    }
}

/// Two labels or more, an address in brackets, or `localhost`.
fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<std::net::IpAddr>().is_ok();
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.chars().count())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|letter| letter.is_alphanumeric() || letter == '-')
    };
    host.eq_ignore_ascii_case("localhost")
        || host.rsplit_once('.').is_some_and(|(_, top_level)| top_level.chars().count() >= 2)
            && host.split('.').all(is_label)
}

fn password_errors(password: &str, username: Option<&str>) -> Vec<String> {
    let lower = password.to_lowercase();
    let is_common = [password, &lower].into_iter().any(passwords::analyzer::is_common_password);
    let is_username = username.is_some_and(|username| username.to_lowercase() == lower);
    let errors = [
        (password.len() < *PASSWORD_BYTES.start(), "Ensure this field has at least 8 characters."),
        (password.len() > *PASSWORD_BYTES.end(), "Ensure this field has no more than 1024 characters."),
        (password.bytes().all(|byte| byte.is_ascii_digit()), "This password is entirely numeric."),
        (is_common, "This password is too common."),
        (is_username, "The password is too similar to the username."),
    ];
    errors.into_iter().filter(|(applies, _)| *applies).map(|(_, message)| message.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_passwords_get_specific_errors() {
        let errors = |password: &str| password_errors(password, Some("Margaret.H"));
        assert_eq!(errors("q-8z"), ["Ensure this field has at least 8 characters."]);
        assert_eq!(errors("margaret.h"), ["The password is too similar to the username."]);
        assert_eq!(errors("Password1"), ["This password is too common."]);
        assert_eq!(errors("8675309867530"), ["This password is entirely numeric."]);
        assert_eq!(errors(&"ä".repeat(513)), ["Ensure this field has no more than 1024 characters."]);
        assert!(errors("securepassword").is_empty());
        assert!(errors("päßword").is_empty(), "8 bytes are enough");
    }

    #[test]
    fn emails_follow_django_rules() {
        let longest = format!("{}@example.com", "a".repeat(242));
        for valid in [
            "user@example.com",
            "a.b+c@sub.example.org",
            "почта@пример.рф",
            "user@localhost",
            "a@[127.0.0.1]",
            "\"quoted@here\"@example.com",
            "o'neil@xn--e1afmkfd.xn--p1ai",
            &longest,
        ] {
            assert!(is_email(valid), "{valid}");
        }
        for invalid in [
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
            assert!(!is_email(invalid), "{invalid}");
        }
    }
}

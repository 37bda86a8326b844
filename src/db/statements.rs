//! The registry: every file under `sql/` (but the migrations) as a named constant.

/// One SQL statement, in a file of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement {
    /// Its file under `sql/`, without `.sql`: the name that logs and metrics use.
    pub name: &'static str,
    /// Its text.
    pub sql: &'static str,
}

macro_rules! statements {
    ($(#[$about:meta])* $list:ident: $($constant:ident = $name:literal)*) => {
        $(
            #[doc = concat!("`sql/", $name, ".sql`")]
            pub const $constant: Statement =
                Statement { name: $name, sql: include_str!(concat!("../../sql/", $name, ".sql")) };
        )*

        $(#[$about])*
        pub const $list: &[Statement] = &[$($constant),*];
    };
}

statements! {
    /// What every new connection of the pool prepares, in this order.
    ALL:

    VERSIONS_READ = "versions/read"
    VERSIONS_CATALOGUE = "versions/catalogue"

    REVOCATIONS_SINCE = "revocations/since"
    REVOCATIONS_REVOKE = "revocations/revoke"
    REVOCATIONS_PRUNE = "revocations/prune"

    SESSIONS_START = "sessions/start"
    SESSIONS_RENEW = "sessions/renew"
    SESSIONS_END = "sessions/end"
    SESSIONS_PRUNE = "sessions/prune"

    USERS_TAKEN = "users/taken"
    USERS_CREATE = "users/create"
    USERS_CREDENTIALS = "users/credentials"
    USERS_STANDING = "users/standing"
    USERS_ME = "users/me"
    USERS_END_TOKENS = "users/end_tokens"
    USERS_PASSWORD = "users/password"
    USERS_CHANGE_PASSWORD = "users/change_password"
    USERS_RENEW_PASSWORD = "users/renew_password"
    USERS_SET_PASSWORD = "users/set_password"
    USERS_DEACTIVATE = "users/deactivate"

    IDEMPOTENCY_CLAIM = "idempotency/claim"
    IDEMPOTENCY_ANSWER = "idempotency/answer"
    IDEMPOTENCY_SETTLE = "idempotency/settle"
    IDEMPOTENCY_PRUNE = "idempotency/prune"

    PRODUCTS_LIST = "products/list"
    PRODUCTS_PAGE = "products/page"
    PRODUCTS_ONE = "products/one"
    PRODUCTS_SOME = "products/some"
    PRODUCTS_LOCK = "products/lock"
    PRODUCTS_CREATE = "products/create"
    PRODUCTS_UPDATE = "products/update"
    PRODUCTS_DELETE = "products/delete"

    CATEGORIES_LIST = "categories/list"
    CATEGORIES_NAMED = "categories/named"
    CATEGORIES_ONE = "categories/one"
    CATEGORIES_CREATE = "categories/create"
    CATEGORIES_RENAME = "categories/rename"
    CATEGORIES_DELETE = "categories/delete"

    TAGS_LIST = "tags/list"
    TAGS_NAMED = "tags/named"
    TAGS_ONE = "tags/one"
    TAGS_CREATE = "tags/create"
    TAGS_RENAME = "tags/rename"
    TAGS_DELETE = "tags/delete"
}

statements! {
    /// The first makes a temporary table, which the others need: nothing that could be prepared ahead.
    OF_IMPORTS:

    IMPORTS_STAGE = "imports/stage"
    IMPORTS_COPY = "imports/copy"
    IMPORTS_LOCK = "imports/lock"
    IMPORTS_MERGE = "imports/merge"
}

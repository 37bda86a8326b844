//! The registry of SQL statements: every file under `sql/` except the migrations and `roles.sql`, as a constant.

/// An SQL statement, stored in its own file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement {
    /// Path under `sql/` without `.sql`; logs and metrics use it as the statement's name.
    pub name: &'static str,
    pub sql: &'static str,
}

macro_rules! statements {
    ($(#[$about:meta])* $list:ident: $($constant:ident = $name:literal)*) => {
        $(
            pub const $constant: Statement =
                Statement { name: $name, sql: include_str!(concat!("../../sql/", $name, ".sql")) };
        )*

        $(#[$about])*
        pub const $list: &[Statement] = &[$($constant),*];
    };
}

statements! {
    /// The statements that every new connection of the pool prepares, in this order.
    PREPARED:

    VERSIONS_READ = "versions/read"
    VERSIONS_READ_LEASED = "versions/read_leased"
    VERSIONS_SURRENDER_LEASES = "versions/surrender_leases"
    VERSIONS_CATALOGUE = "versions/catalogue"
    VERSIONS_PRUNE = "versions/prune"

    REVOCATIONS_SINCE = "revocations/since"
    REVOCATIONS_REVOKE = "revocations/revoke"
    REVOCATIONS_PRUNE = "revocations/prune"

    SESSIONS_CREATE = "sessions/create"
    SESSIONS_ROTATE = "sessions/rotate"
    SESSIONS_REVOKE = "sessions/revoke"
    SESSIONS_PRUNE = "sessions/prune"

    TRUSTED_ADDRESSES_PRUNE = "trusted_addresses/prune"

    USERS_AVAILABILITY = "users/availability"
    USERS_CREATE = "users/create"
    USERS_CREDENTIALS = "users/credentials"
    USERS_STATUS = "users/status"
    USERS_PROFILE = "users/profile"
    USERS_REVOKE_ALL_TOKENS = "users/revoke_all_tokens"
    USERS_PASSWORD = "users/password"
    USERS_MAX_ITERATIONS = "users/max_iterations"
    USERS_CHANGE_PASSWORD = "users/change_password"
    USERS_REHASH_PASSWORD = "users/rehash_password"
    USERS_SET_PASSWORD = "users/set_password"
    USERS_DEACTIVATE = "users/deactivate"
    USERS_END_ALL_SESSIONS = "users/end_all_sessions"

    IDEMPOTENCY_CLAIM = "idempotency/claim"
    IDEMPOTENCY_LOOKUP = "idempotency/lookup"
    IDEMPOTENCY_COMPLETE = "idempotency/complete"
    IDEMPOTENCY_PRUNE = "idempotency/prune"

    PRODUCTS_LIST = "products/list"
    PRODUCTS_PAGE = "products/page"
    PRODUCTS_BY_ID = "products/by_id"
    PRODUCTS_CHANGED = "products/changed"
    PRODUCTS_LOCK = "products/lock"
    PRODUCTS_CREATE = "products/create"
    PRODUCTS_UPDATE = "products/update"
    PRODUCTS_UPDATE_WITH_TAGS = "products/update_with_tags"
    PRODUCTS_DELETE = "products/delete"

    CATEGORIES_LIST = "categories/list"
    CATEGORIES_BY_NAMES = "categories/by_names"
    CATEGORIES_BY_ID = "categories/by_id"
    CATEGORIES_LOCK = "categories/lock"
    CATEGORIES_CREATE = "categories/create"
    CATEGORIES_RENAME = "categories/rename"
    CATEGORIES_DELETE = "categories/delete"

    TAGS_LIST = "tags/list"
    TAGS_BY_NAMES = "tags/by_names"
    TAGS_BY_ID = "tags/by_id"
    TAGS_LOCK = "tags/lock"
    TAGS_CREATE = "tags/create"
    TAGS_RENAME = "tags/rename"
    TAGS_DELETE = "tags/delete"
}

statements! {
    /// The statements of an import. They cannot be prepared in advance, because the first one creates the temporary
    /// table that the others use.
    IMPORTS:

    IMPORTS_STAGE = "imports/stage"
    IMPORTS_READS = "imports/reads"
    IMPORTS_PRODUCTS = "imports/products"
    IMPORTS_CATEGORIES = "imports/categories"
    IMPORTS_COPY = "imports/copy"
    IMPORTS_LOCK = "imports/lock"
    IMPORTS_LOCK_PRODUCTS = "imports/lock_products"
    IMPORTS_ADVANCE_SEQUENCE = "imports/advance_sequence"
    IMPORTS_MERGE = "imports/merge"
}

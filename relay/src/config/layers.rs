//! Settings of one source laid over those of another, and asking them whether they say anything of a key.

/// Settings, or one of them.
pub(super) trait Layer {
    /// These, and where they say nothing, what `below` says.
    fn over(self, below: Self) -> Self;
    /// True if they say anything of this key: none for themselves, `table.key` for one in a table.
    fn says(&self, key: Option<&str>) -> bool;
}

impl<T> Layer for Option<T> {
    fn over(self, below: Self) -> Self {
        self.or(below)
    }
    fn says(&self, key: Option<&str>) -> bool {
        key.is_none() && self.is_some()
    }
}

/// Makes a [`Layer`] of a struct whose fields all are; whoever forgets one is told by the compiler.
macro_rules! layers {
    ($settings:ident { $($field:ident),+ $(,)? }) => {
        impl $crate::config::layers::Layer for $settings {
            fn over(self, below: Self) -> Self {
                Self {
                    $($field: $crate::config::layers::Layer::over(self.$field, below.$field),)+
                }
            }
            fn says(&self, key: Option<&str>) -> bool {
                let Some(key) = key else {
                    return *self != Self::default();
                };
                let (first, rest) = match key.split_once('.') {
                    Some((first, rest)) => (first, Some(rest)),
                    None => (key, None),
                };
                match first {
                    $(stringify!($field) => {
                        $crate::config::layers::Layer::says(&self.$field, rest)
                    })+
                    _ => false,
                }
            }
        }
    };
}
pub(super) use layers;

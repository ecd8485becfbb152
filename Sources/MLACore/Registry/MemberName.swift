/// Which names a dynamic member may have.
///
/// The rule is the one of a Python enum class: an identifier that is not an
/// attribute of the class already. Attributes are all names with two leading
/// and trailing underscores or one of each (Python keeps both kinds to itself),
/// `mro`, what MLAPrefillBackendEnum defines, and `name` and `value`, which
/// every member has.
enum MemberName {
  static func isAllowed(_ name: String) -> Bool {
    isIdentifier(name) && !reserved.contains(name) && !isUnderscored(name)
  }

  private static let reserved: Set<String> = [
    "register", "get_path", "get_class", "is_overridden", "clear_override", "mro", "name", "value",
  ]

  /// As Python's str.isidentifier().
  private static func isIdentifier(_ name: String) -> Bool {
    guard let first = name.unicodeScalars.first, first == "_" || first.properties.isXIDStart else {
      return false
    }
    return name.unicodeScalars.dropFirst().allSatisfy(\.properties.isXIDContinue)
  }

  private static func isUnderscored(_ name: String) -> Bool {
    name.hasPrefix("_") && name.hasSuffix("_")
  }
}
